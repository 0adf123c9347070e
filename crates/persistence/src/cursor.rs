//! Page cursors: where the next page of a list begins. Opaque to clients: hexadecimal, with a
//! first byte that says which list, so that a cursor of another list is refused.

use callq_domain::{CallType, Page, PageRequest, StoreError};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::Failure;

/// The largest page, whatever is asked.
const LARGEST_PAGE: u16 = 200;

/// A list that is paged by descending id. Ids grow with time, so that is newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum List {
    Agents = 1,
    Contacts = 2,
    Campaigns = 3,
    Users = 5,
    DoNotCall = 8,
    GlobalDoNotCall = 9,
}

/// The first byte of an [`ItemCursor`].
const ITEMS: u8 = 6;

/// The first byte of a [`CallCursor`].
const CALLS: u8 = 7;

/// The first byte of a [`ContactCursor`].
const CAMPAIGN_CONTACTS: u8 = 8;

/// Which rows of a list make a page: the first `limit` with an id below `before`.
#[derive(Debug)]
pub(crate) struct IdPage {
    list: List,
    pub(crate) before: Uuid,
    limit: usize,
}

impl IdPage {
    /// Reads what a client asked.
    ///
    /// # Errors
    /// [`StoreError::BadCursor`] for a cursor that is not of this list.
    pub(crate) fn new(list: List, page: &PageRequest) -> Result<Self, StoreError> {
        let before = match &page.cursor {
            None => Uuid::max(),
            Some(text) => match decode::<17>(text) {
                Some([tag, id @ ..]) if tag == list as u8 => Uuid::from_bytes(id),
                _ => return Err(StoreError::BadCursor),
            },
        };
        Ok(Self {
            list,
            before,
            limit: page_size(page),
        })
    }

    /// How many rows to fetch: one more than the page holds, to see whether another follows.
    pub(crate) fn fetch(&self) -> i64 {
        fetch(self.limit)
    }

    /// The page made of the rows fetched.
    pub(crate) fn of<R, T>(
        &self,
        mut rows: Vec<R>,
        id: impl Fn(&R) -> Uuid,
        convert: impl FnMut(R) -> Result<T, Failure>,
    ) -> Result<Page<T>, Failure> {
        let more = rows.len() > self.limit;
        rows.truncate(self.limit);
        let last = rows.last().filter(|_| more).map(id);
        let next_cursor = last.map(|id| encode(&[&[self.list as u8], id.as_bytes()]));
        let items = rows.into_iter().map(convert).collect::<Result<_, _>>()?;
        Ok(Page { items, next_cursor })
    }
}

/// The last item of a page: the next begins after it in the order of type, `due_at` and `id`, the
/// latter two descending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ItemCursor {
    pub(crate) call_type: CallType,
    pub(crate) due_at: DateTime<Utc>,
    pub(crate) id: Uuid,
}

impl ItemCursor {
    /// Reads a client's cursor.
    ///
    /// # Errors
    /// [`StoreError::BadCursor`] if this server did not make it.
    pub(crate) fn read(text: &str) -> Result<Self, StoreError> {
        let Some([ITEMS, call_type, rest @ ..]) = decode::<26>(text) else {
            return Err(StoreError::BadCursor);
        };
        let call_type = match call_type {
            0 => CallType::Direct,
            1 => CallType::Campaign,
            _ => return Err(StoreError::BadCursor),
        };
        let (due_at, id) = decode_place(&rest)?;
        Ok(Self {
            call_type,
            due_at,
            id,
        })
    }

    /// The cursor as a client is given it.
    pub(crate) fn write(self) -> String {
        let call_type = match self.call_type {
            CallType::Direct => 0,
            CallType::Campaign => 1,
        };
        let micros = self.due_at.timestamp_micros().to_be_bytes();
        encode(&[&[ITEMS, call_type], &micros, self.id.as_bytes()])
    }
}

/// The last call of a page: calls that are up come first, each part in the descending order of `at`
/// and `id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CallCursor {
    pub(crate) is_over: bool,
    pub(crate) at: DateTime<Utc>,
    pub(crate) id: Uuid,
}

impl CallCursor {
    /// Reads a client's cursor.
    ///
    /// # Errors
    /// [`StoreError::BadCursor`] if this server did not make it.
    pub(crate) fn read(text: &str) -> Result<Self, StoreError> {
        let Some([CALLS, is_over @ 0..=1, rest @ ..]) = decode::<26>(text) else {
            return Err(StoreError::BadCursor);
        };
        let (at, id) = decode_place(&rest)?;
        Ok(Self {
            is_over: is_over == 1,
            at,
            id,
        })
    }

    /// The cursor as a client is given it.
    pub(crate) fn write(self) -> String {
        let micros = self.at.timestamp_micros().to_be_bytes();
        encode(&[
            &[CALLS, u8::from(self.is_over)],
            &micros,
            self.id.as_bytes(),
        ])
    }
}

/// The last contact of a page of a campaign's, by the list that it was read from: the next begins
/// after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContactCursor {
    /// The campaign's own list.
    Listed(i64),
    /// Calls that are due: priority, descending, and position.
    Due(i32, i64),
    /// Calls that sleep: when they wake, and position.
    Asleep(DateTime<Utc>, i64),
    /// Calls that are up: since when, and which.
    Up(DateTime<Utc>, Uuid),
    /// Calls that are over: since when, and which item, both descending.
    Over(DateTime<Utc>, Uuid),
}

impl ContactCursor {
    /// Reads a client's cursor.
    ///
    /// # Errors
    /// [`StoreError::BadCursor`] if this server did not make it.
    pub(crate) fn read(text: &str) -> Result<Self, StoreError> {
        let Some([CAMPAIGN_CONTACTS, kind, rest @ ..]) = decode::<26>(text) else {
            return Err(StoreError::BadCursor);
        };
        let (at, id) = decode_place(&rest)?;
        let (first, second) = (at.timestamp_micros(), id.as_u64_pair().0.cast_signed());
        match kind {
            0 => Ok(Self::Listed(first)),
            1 => {
                let priority = i32::try_from(first).map_err(|_| StoreError::BadCursor)?;
                Ok(Self::Due(priority, second))
            }
            2 => Ok(Self::Asleep(at, second)),
            3 => Ok(Self::Up(at, id)),
            4 => Ok(Self::Over(at, id)),
            _ => Err(StoreError::BadCursor),
        }
    }

    /// The cursor as a client is given it.
    pub(crate) fn write(self) -> String {
        let of_position = |position: i64| Uuid::from_u64_pair(position.cast_unsigned(), 0);
        let (kind, first, second) = match self {
            Self::Listed(ordinal) => (0, ordinal, Uuid::nil()),
            Self::Due(priority, position) => (1, priority.into(), of_position(position)),
            Self::Asleep(at, position) => (2, at.timestamp_micros(), of_position(position)),
            Self::Up(at, id) => (3, at.timestamp_micros(), id),
            Self::Over(at, id) => (4, at.timestamp_micros(), id),
        };
        encode(&[
            &[CAMPAIGN_CONTACTS, kind],
            &first.to_be_bytes(),
            second.as_bytes(),
        ])
    }
}

/// A time and an id, as [`ItemCursor`] and [`CallCursor`] end.
fn decode_place(bytes: &[u8; 24]) -> Result<(DateTime<Utc>, Uuid), StoreError> {
    let (micros, id) = bytes.split_at(8);
    let micros = micros.try_into().map(i64::from_be_bytes);
    match (
        micros.map(DateTime::from_timestamp_micros),
        Uuid::from_slice(id),
    ) {
        (Ok(Some(at)), Ok(id)) => Ok((at, id)),
        _ => Err(StoreError::BadCursor),
    }
}

/// How many entries a page holds at most.
pub(crate) fn page_size(page: &PageRequest) -> usize {
    usize::from(page.limit.clamp(1, LARGEST_PAGE))
}

/// One more than `limit`, for a `LIMIT`.
pub(crate) fn fetch(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1)
}

fn encode(parts: &[&[u8]]) -> String {
    let bytes = parts.iter().copied().flatten();
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (nth, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * nth..2 * nth + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(cursor: Option<String>) -> PageRequest {
        PageRequest { limit: 2, cursor }
    }

    #[test]
    fn a_full_page_with_more_behind_it_leads_on_and_the_last_does_not() {
        let page = IdPage::new(List::Agents, &request(None)).unwrap();
        let ids = [3_u128, 2, 1].map(Uuid::from_u128);

        let first = page.of(ids.to_vec(), |id| *id, Ok).unwrap();
        let last = page.of(ids[..2].to_vec(), |id| *id, Ok).unwrap();

        assert_eq!(first.items, ids[..2]);
        let next = IdPage::new(List::Agents, &request(first.next_cursor)).unwrap();
        assert_eq!(next.before, ids[1]);
        assert_eq!(last.next_cursor, None);
    }

    #[test]
    fn a_cursor_of_another_list_or_of_nobody_is_refused() {
        let page = IdPage::new(List::Agents, &request(None)).unwrap();
        let three = vec![Uuid::nil(); 3];
        let cursor = page.of(three, |id| *id, Ok).unwrap().next_cursor.unwrap();

        let refused =
            |text: &str| IdPage::new(List::Contacts, &request(Some(text.into()))).unwrap_err();

        for text in [
            cursor.as_str(),
            "",
            "zz",
            "é",
            &cursor[1..],
            &"+1".repeat(17),
        ] {
            assert_eq!(refused(text), StoreError::BadCursor, "{text:?}");
        }
        assert_eq!(ItemCursor::read(&cursor), Err(StoreError::BadCursor));
    }

    #[test]
    fn a_contact_cursor_survives_its_text_form_and_is_no_other_lists() {
        let at = DateTime::from_timestamp_micros(1_763_800_000_123_456).unwrap();
        for cursor in [
            ContactCursor::Listed(100_000),
            ContactCursor::Due(-3, i64::MAX),
            ContactCursor::Asleep(at, 17),
            ContactCursor::Up(at, Uuid::now_v7()),
            ContactCursor::Over(at, Uuid::now_v7()),
        ] {
            assert_eq!(ContactCursor::read(&cursor.write()), Ok(cursor));
            assert_eq!(
                CallCursor::read(&cursor.write()),
                Err(StoreError::BadCursor)
            );
        }
    }

    #[test]
    fn an_item_cursor_survives_its_text_form() {
        let cursor = ItemCursor {
            call_type: CallType::Campaign,
            due_at: DateTime::from_timestamp_micros(1_763_800_000_123_456).unwrap(),
            id: Uuid::now_v7(),
        };
        assert_eq!(ItemCursor::read(&cursor.write()), Ok(cursor));
    }
}
