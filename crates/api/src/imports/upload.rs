//! Reading the form that brings a list: bounded in size and time, its file on disk and never in
//! memory. The file has no name there, so nothing is left of it whatever happens.

use std::fs::File;
use std::io::{self, BufReader, SeekFrom};
use std::time::Duration;

use actix_multipart::{Field, Multipart, MultipartError};
use actix_web::HttpRequest;
use actix_web::http::header;
use actix_web::web::{self, Bytes};
use callq_domain::{CampaignId, Country};
use callq_lists::{List, Watch};
use futures_util::{Stream, StreamExt as _};
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use utoipa::ToSchema;
use uuid::Uuid;

use super::of_open;
use crate::campaigns::CampaignRequest;
use crate::fields;
use crate::json::BODY_LIMIT;
use crate::problem::Problem;

/// The longest wait for a whole form, and for the next piece of it.
const FORM_TIMEOUT: Duration = Duration::from_secs(900);
const PIECE_TIMEOUT: Duration = Duration::from_secs(30);

/// The form that brings a list.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `read_upload` reads")]
pub(crate) struct ListForm {
    /// The list: CSV in UTF-8, or UTF-16 with its byte order mark, at most 256 MiB and 1,000,000 rows.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
    /// A campaign that is there and not over. This or `campaign`.
    campaign_id: Option<Uuid>,
    /// A campaign to be made, as JSON, without `contact_ids`.
    campaign: Option<CampaignRequest>,
    /// Whether good rows are imported though others fail; false unless given.
    partial: Option<bool>,
    /// Whether to report only; false unless given.
    dry_run: Option<bool>,
    /// Where the list is from, an ISO 3166 country code of two letters; the campaign's unless given.
    country: Option<String>,
}

/// The form as it was read. The file is ready to be read from its beginning.
#[derive(Default)]
pub(super) struct Upload {
    pub(super) file: Option<File>,
    pub(super) campaign_id: Option<CampaignId>,
    pub(super) campaign: Option<Vec<u8>>,
    pub(super) country: Option<Country>,
    pub(super) partial: bool,
    pub(super) dry_run: bool,
}

/// Turns away by its head what need not be read.
pub(super) fn check_head(request: &HttpRequest, limit: u64) -> Result<(), Problem> {
    let text = |name| request.headers().get(name).and_then(|it| it.to_str().ok());
    let kind = text(header::CONTENT_TYPE).unwrap_or_default();
    if !kind
        .trim_start()
        .to_ascii_lowercase()
        .starts_with("multipart/form-data")
    {
        return Err(Problem::not_a_form());
    }
    let length = text(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    // The other parts are small beside it.
    if length.is_some_and(|length| length > limit + 8 * BODY_LIMIT as u64) {
        return Err(Problem::file_too_large(limit));
    }
    Ok(())
}

pub(super) async fn read_upload(form: Multipart, limit: u64) -> Result<Upload, Problem> {
    timeout(FORM_TIMEOUT, read_parts(form, limit))
        .await
        .unwrap_or_else(|_| Err(Problem::body_too_slow()))
}

async fn read_parts(mut form: Multipart, limit: u64) -> Result<Upload, Problem> {
    let mut upload = Upload::default();
    let mut seen: Vec<String> = Vec::new();
    while let Some(mut part) = next_of(&mut form).await? {
        let name = part.name().unwrap_or_default().to_owned();
        if seen.contains(&name) {
            return Err(Problem::invalid(&name, "is given twice"));
        }
        match name.as_str() {
            "file" => upload.file = Some(spooled(&mut part, limit).await?),
            "campaign_id" => upload.campaign_id = id_of(&text_of(&name, &mut part).await?)?,
            "campaign" => upload.campaign = Some(bytes_of(&name, &mut part).await?),
            "country" => {
                let code = text_of(&name, &mut part).await?;
                upload.country = fields::country(&name, Some(&code))?;
            }
            "partial" => upload.partial = flag_of(&name, &mut part).await?,
            "dry_run" => upload.dry_run = flag_of(&name, &mut part).await?,
            other => {
                let fault = "is no part of this form; it has file, campaign_id or campaign, \
                    country, partial and dry_run";
                return Err(Problem::invalid(other, fault));
            }
        }
        seen.push(name);
    }
    Ok(upload)
}

/// The next part of the form, or piece of a part.
async fn next_of<T>(
    stream: &mut (impl Stream<Item = Result<T, MultipartError>> + Unpin),
) -> Result<Option<T>, Problem> {
    match timeout(PIECE_TIMEOUT, stream.next()).await {
        Ok(piece) => piece.transpose().map_err(|error| of_form(&error)),
        Err(_) => Err(Problem::body_too_slow()),
    }
}

fn of_form(error: &MultipartError) -> Problem {
    match error {
        MultipartError::ContentTypeMissing
        | MultipartError::ContentTypeParse
        | MultipartError::ContentTypeIncompatible => Problem::not_a_form(),
        MultipartError::Incomplete | MultipartError::Payload(_) => {
            Problem::malformed("The body ended before all of it had come.")
        }
        error => Problem::malformed(format!("The form cannot be read: {error}.")),
    }
}

/// The part's content in a file that has no name. What can be no list is not waited for to its end.
async fn spooled(part: &mut Field, limit: u64) -> Result<File, Problem> {
    let mut file = tempfile::tempfile()
        .map(tokio::fs::File::from_std)
        .map_err(|error| no_room(&error))?;
    let mut length = 0;
    let mut watch = Watch::default();
    while let Some(piece) = next_of(part).await? {
        length += piece.len() as u64;
        if length > limit {
            return Err(Problem::file_too_large(limit));
        }
        file.write_all(&piece)
            .await
            .map_err(|error| no_room(&error))?;
        if watch.is_lost(&piece) {
            return Err(fault_of(rewound(file).await?).await);
        }
    }
    rewound(file).await
}

/// What is wrong with a file that is no list.
async fn fault_of(file: File) -> Problem {
    let read = web::block(move || match List::open(BufReader::new(file), None) {
        Ok(mut list) => list
            .find_map(Result::err)
            .map(|fault| Problem::bad_list(&fault)),
        Err(error) => Some(of_open(error)),
    });
    match read.await {
        Ok(Some(problem)) => problem,
        Ok(None) => Problem::internal("a list that was lost has no fault"),
        Err(error) => Problem::internal(error.to_string()),
    }
}

/// Ready to be read from its beginning.
async fn rewound(mut file: tokio::fs::File) -> Result<File, Problem> {
    file.flush().await.map_err(|error| no_room(&error))?;
    file.seek(SeekFrom::Start(0))
        .await
        .map_err(|error| no_room(&error))?;
    Ok(file.into_std().await)
}

fn no_room(error: &io::Error) -> Problem {
    let message = "This server cannot put the file aside; nothing was changed.";
    Problem::unavailable(message, format!("a list cannot be spooled: {error}"))
}

async fn bytes_of(name: &str, part: &mut Field) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    while let Some(piece) = next_of::<Bytes>(part).await? {
        if bytes.len() + piece.len() > BODY_LIMIT {
            return Err(Problem::too_large(BODY_LIMIT).with_field(name));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

async fn text_of(name: &str, part: &mut Field) -> Result<String, Problem> {
    let bytes = bytes_of(name, part).await?;
    let text = String::from_utf8(bytes).map_err(|_| Problem::invalid(name, "is not UTF-8"))?;
    Ok(text.trim().to_owned())
}

async fn flag_of(name: &str, part: &mut Field) -> Result<bool, Problem> {
    match text_of(name, part).await?.as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" | "" => Ok(false),
        _ => Err(Problem::invalid(name, "must be true or false")),
    }
}

/// Empty is none, as an HTML form sends it.
fn id_of(text: &str) -> Result<Option<CampaignId>, Problem> {
    if text.is_empty() {
        return Ok(None);
    }
    let id = text.parse().map_err(|_| {
        let fault = "must be a UUID such as 019ab0de-7c3f-7d21-9c53-52f1c2b06a4e";
        Problem::invalid("campaign_id", fault)
    })?;
    Ok(Some(id))
}
