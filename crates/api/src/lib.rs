//! The HTTP side of callq: actix-web controllers that turn requests into domain types, ask the
//! engine or a store, and turn what they hear into the contract's answers.
//!
//! A controller knows the ports of `callq-domain` and the engine's [`Door`], never a database.
//! What the API answers is described by itself, on `/openapi.json`.
//!
//! * `token`, `auth`, `rate`, `front`: who is asking, and what every request goes through.
//! * `problem`, `json`, `fields`, `params`: how input is read and what is said of bad input.
//! * One module for each kind of object, with its wire types beside its controllers.
//! * `routes`: every route, listed once.
//!
//! # Using it from another service
//!
//! Give [`Api`] the ports it is to stand on, and mount it after your own routes:
//!
//! ```
//! use actix_web::{App, HttpResponse, web};
//! use callq_api::{Api, Ports, configure};
//!
//! # #[expect(dead_code, reason = "shown, not run")]
//! async fn serve(ports: Ports) -> std::io::Result<()> {
//!     let api = web::Data::new(Api::new(ports).with_rate_limit(None));
//!     actix_web::HttpServer::new(move || {
//!         App::new()
//!             .route("/about", web::get().to(|| async { HttpResponse::Ok().body("mine") }))
//!             .configure(configure(api.clone()))
//!     })
//!     .bind(("127.0.0.1", 3001))?
//!     .run()
//!     .await
//! }
//! ```

mod admin;
mod agents;
mod answer;
mod api;
mod auth;
mod calls;
mod campaigns;
mod contacts;
mod do_not_call;
mod door;
mod fields;
mod front;
mod global_do_not_call;
mod health;
mod imports;
mod initiate;
mod json;
mod metrics;
mod number_file;
mod openapi;
mod operator_calls;
mod params;
mod problem;
mod provider_paces;
mod queue;
mod rate;
mod recall;
mod routes;
mod token;
mod wait;
mod webhooks;

pub use api::{Api, Clock, Ports};
pub use door::Door;
pub use fields::is_time_zone;
pub use imports::{import_report_json, list_campaign_of_json};
pub use metrics::{AuditMetrics, Metrics};
pub use operator_calls::{call_story_json, held_calls_json};
pub use routes::configure;
pub use token::{TOKEN_PREFIX, hash_token, mint_token};
