//! Every route, listed once: what is served and what is described cannot differ.

use actix_web::dev::ServiceRequest;
use actix_web::http::header;
use actix_web::middleware::{Next, from_fn};
use actix_web::{HttpRequest, HttpResponse, ResponseError as _, get, web};
use utoipa::OpenApi;

use crate::api::Api;
use crate::campaigns::{
    change as campaign_change, contacts as campaign_contacts, figures as campaign_figures,
};
use crate::front::front;
use crate::openapi::Completed;
use crate::problem::Problem;
use crate::{
    admin, agents, calls, campaigns, contacts, do_not_call, global_do_not_call, health, imports,
    initiate, metrics, operator_calls, provider_paces, queue, webhooks,
};

macro_rules! routes {
    ($($module:ident :: $handler:ident),+ $(,)?) => {
        fn mount(config: &mut web::ServiceConfig) {
            $(config.service($module::$handler);)+
            config.service(show_openapi);
        }

        /// The description of every route.
        #[derive(OpenApi)]
        #[openapi(
            info(
                title = "callq",
                description = "Places calls at once while slots are free, and queues them fairly \
                    while they are not.",
                license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
            ),
            paths($($module::$handler,)+ show_openapi),
            modifiers(&Completed),
        )]
        pub(crate) struct Described;
    };
}

routes![
    initiate::initiate_call,
    queue::show_queue_status,
    queue::list_queue_items,
    queue::show_queue_statistics,
    queue::show_queue_item,
    queue::cancel_queue_item,
    queue::show_concurrency,
    calls::list_calls,
    calls::show_call,
    calls::hang_up_call,
    agents::create_agent,
    agents::list_agents,
    agents::show_agent,
    agents::replace_agent,
    agents::delete_agent,
    contacts::create_contact,
    contacts::list_contacts,
    contacts::show_contact,
    contacts::replace_contact,
    contacts::delete_contact,
    do_not_call::add_do_not_call,
    do_not_call::upload_do_not_call,
    do_not_call::list_do_not_call,
    do_not_call::show_do_not_call,
    do_not_call::delete_do_not_call,
    campaigns::create_campaign,
    campaigns::list_campaigns,
    campaign_figures::show_campaign_summary,
    imports::import_list,
    imports::show_list_template,
    imports::show_import_errors,
    campaigns::show_campaign,
    campaign_change::replace_campaign,
    campaign_change::delete_campaign,
    campaigns::start_campaign,
    campaigns::pause_campaign,
    campaigns::resume_campaign,
    campaigns::cancel_campaign,
    campaign_figures::show_campaign_statistics,
    campaign_contacts::list_campaign_contacts,
    campaign_contacts::add_campaign_contacts,
    campaign_contacts::cancel_campaign_contacts,
    campaign_contacts::requeue_campaign_contacts,
    admin::show_system,
    admin::replace_system,
    admin::change_system,
    admin::pause_dispatch,
    admin::resume_dispatch,
    admin::list_users,
    admin::show_user,
    admin::change_user,
    admin::list_queue_by_user,
    provider_paces::list_provider_paces,
    provider_paces::set_provider_pace,
    global_do_not_call::add_global_do_not_call,
    global_do_not_call::upload_global_do_not_call,
    global_do_not_call::list_global_do_not_call,
    global_do_not_call::show_global_do_not_call,
    global_do_not_call::delete_global_do_not_call,
    operator_calls::list_active_calls,
    operator_calls::list_held_calls,
    operator_calls::show_any_call,
    operator_calls::settle_call,
    webhooks::receive_event,
    health::show_liveness,
    health::show_readiness,
    metrics::show_metrics,
];

/// Mounts the API. `api` is made once and shared by every server thread.
///
/// It answers every path it is given, unknown ones with a 404 problem: register it after your own
/// services, or inside a `web::scope` of its own.
pub fn configure(api: web::Data<Api>) -> impl Fn(&mut web::ServiceConfig) + Clone {
    move |config| {
        let shared = api.clone();
        let around = from_fn(move |request: ServiceRequest, next: Next<_>| {
            front(shared.clone(), request, next)
        });
        config.app_data(api.clone()).service(
            web::scope("")
                .wrap(around)
                .configure(mount)
                .default_service(web::to(no_route)),
        );
    }
}

/// What answers where no route does: 405 if the path is known by another method, else 404.
async fn no_route(api: web::Data<Api>, request: HttpRequest) -> HttpResponse {
    let problem = match api.description.methods_of(request.path()) {
        Some(methods) => Problem::method_not_allowed(methods),
        None => Problem::not_found("path"),
    };
    problem.error_response()
}

/// This API, as OpenAPI 3.1.
#[utoipa::path(
    tag = "operation",
    responses((status = 200, description = "The description you are reading", body = Object))
)]
#[get("/openapi.json")]
pub(crate) async fn show_openapi(api: web::Data<Api>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "application/json"))
        .body(api.description.json().to_owned())
}
