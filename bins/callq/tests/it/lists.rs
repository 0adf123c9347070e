//! Lists into a campaign of a running server: from the command line, and over connections that bring
//! anything else.

use std::cell::Cell;
use std::io::Write as _;
use std::process::Output;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{PATIENCE, Server, User, World, callq, number};

fn import(world: &World, list: &str, arguments: &[&str]) -> Output {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(list.as_bytes()).expect("written");
    callq()
        .envs(&world.settings)
        .args(["campaign", "import", "--email", "ada@example.com", "--json"])
        .arg(file.path())
        .args(arguments)
        .output()
        .expect("callq runs")
}

fn record(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        let told = String::from_utf8_lossy(&output.stderr);
        panic!("no record ({error}): {told}")
    })
}

fn campaign(ada: &User) -> String {
    json!({"name": "Spring", "agent_id": ada.agent_id, "next_action": "call",
           "first_call_time": "00:00", "last_call_time": "23:59", "start_date": "2026-01-01"})
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_imported_from_the_command_line_and_called() {
    let world = World::new(10);
    let server = world.serve();
    let ada = world.user(&server, "ada", 1).await;
    let list = format!(
        "Phone;Name\n{};One\n{};Two\n{};Twice\n",
        number(1),
        number(2),
        number(1)
    );
    let campaign = campaign(&ada);

    let dry = import(&world, &list, &["--campaign", &campaign, "--dry-run"]);
    assert!(dry.status.success());
    assert_eq!(record(&dry)["campaign_id"], Value::Null);
    let made = import(&world, &list, &["--campaign", &campaign]);
    assert!(made.status.success());
    let made = record(&made);
    assert_eq!(
        (&made["imported"], &made["skipped"]),
        (&json!(2), &json!(1))
    );
    let id = made["campaign_id"].as_str().expect("an id");
    let started = ada
        .post(&format!("/api/campaigns/{id}/start"), json!({}))
        .await;
    assert_eq!(started.status, 200, "{started:?}");
    let dials = world.dialer.wait_for_dials(1, PATIENCE);
    assert_eq!(dials[0].to, number(1));

    let bad = import(&world, "Phone\nnonsense\n", &["--campaign-id", id]);
    assert_eq!(bad.status.code(), Some(1));
    assert_eq!(record(&bad)["errors"][0]["row"], 2);
    let cut = import(&world, "Phone\n\"+1415", &["--campaign-id", id]);
    let told = String::from_utf8_lossy(&cut.stderr).into_owned();
    assert_eq!(cut.status.code(), Some(1));
    assert!(told.contains("row 2, column 1"), "{told}");
    for arguments in [
        &["--campaign-id", id, "--country", "Germany"][..],
        &["--campaign-id", "x"],
        &["--campaign", "{}"],
        &[],
    ] {
        let refused = import(&world, &list, arguments);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(world.audit(), "every counter equals its rows");
}

/// What a server answered, and how many bytes it had been sent until then.
struct Told {
    status: u16,
    body: Value,
    sent: usize,
}

/// Sends a form whose file is made of these pieces, and reads the answer whenever it comes.
async fn upload(ada: &User, id: &str, pieces: impl Iterator<Item = Vec<u8>>, end: &str) -> Told {
    let form = format!(
        "--cut\r\nContent-Disposition: form-data; name=\"campaign_id\"\r\n\r\n{id}\r\n\
         --cut\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.csv\"\r\n\r\n"
    );
    let head = format!(
        "POST /api/campaigns/upload-csv HTTP/1.1\r\nHost: callq\r\nConnection: close\r\n\
         Authorization: Bearer {}\r\nContent-Type: multipart/form-data; boundary=cut\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        ada.token
    );
    let address = ada.address.trim_start_matches("http://");
    let stream = TcpStream::connect(address).await.expect("it listens");
    let (mut reader, mut writer) = stream.into_split();
    let mut sent = 0;
    let is_answered = Cell::new(false);
    let send = async {
        let chunk =
            |piece: &[u8]| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
        writer.write_all(head.as_bytes()).await?;
        writer.write_all(&chunk(form.as_bytes())).await?;
        for piece in pieces.take_while(|_| !is_answered.get()) {
            writer.write_all(&chunk(&piece)).await?;
            sent += piece.len();
        }
        writer.write_all(end.as_bytes()).await?;
        match end == BROKEN {
            true => writer.shutdown().await,
            false => Ok(()),
        }
    };
    let mut told = (0, Value::Null);
    let read = async {
        let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
        // Until all has come, or the connection is broken off.
        while let Ok(read @ 1..) = reader.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..read]);
            is_answered.set(true);
            let text = String::from_utf8_lossy(&answer);
            let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
            if let Ok(body) = serde_json::from_str(body) {
                let status = head.split(' ').nth(1).and_then(|it| it.parse().ok());
                told = (status.expect("a status"), body);
                break;
            }
        }
    };
    // The server may stop reading as soon as it has answered.
    let (_, ()) = tokio::join!(send, read);
    let (status, body) = told;
    Told { status, body, sent }
}

/// The end of a whole form, and one that the connection does not outlive.
const END: &str = "b\r\n\r\n--cut--\r\n\r\n0\r\n\r\n";
const BROKEN: &str = "ff\r\n+1415";

/// The most memory that a server has had, in KiB, where the system tells.
fn peak_memory(server: &Server) -> Option<usize> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_list_is_told_by_row_and_column_and_leaves_nothing() {
    let world = World::new(10);
    let server = world.serve();
    let ada = world.user(&server, "ada", 1).await;
    let id = ada.campaign(1).await;
    let left = || {
        [
            "contacts",
            "campaign_contacts",
            "call_queue",
            "import_errors",
        ]
        .map(|table| world.count(&format!("SELECT count(*) FROM {table}")))
    };
    let before = left();
    let good: String = (0..1_500)
        .map(|n| format!("{},Ada\n", number(1000 + n)))
        .collect();
    let list = format!("phone,name\n{good}");
    let after = |more: &[u8]| [list.as_bytes(), more].concat();
    let wide: Vec<u8> = list.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let binary: Vec<u8> = (0..200_000_u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let broken = list.clone().into_bytes();
    let cut = after(b"+14155552671,\"Ada");
    let latin = after(b"+14155552671,Zo\xEB\n");
    for (name, file, end, place) in [
        ("cut short in the form", broken.clone(), "0\r\n\r\n", None),
        ("cut short with its connection", broken, BROKEN, None),
        ("cut short in a quote", cut, END, Some((1_502, 2))),
        ("Latin-1", latin, END, Some((1_502, 2))),
        ("UTF-16 without its mark", wide, END, Some((1, 1))),
        ("binary", binary, END, Some((1, 1))),
    ] {
        let told = upload(&ada, &id, std::iter::once(file), end).await;
        // Nobody may be there any more to hear it.
        let is_gone = end == BROKEN && told.status == 0;
        assert!(told.status == 400 || is_gone, "{name}: {}", told.body);
        let row = told.body["row"].as_u64();
        assert_eq!(row.zip(told.body["column"].as_u64()), place, "{name}");
        assert_eq!(left(), before, "{name}");
    }

    let peak = peak_memory(&server);
    let gigabyte = (0..16_384).map(|_| vec![b'x'; 65_536]);
    let told = upload(&ada, &id, gigabyte, END).await;
    assert_eq!((told.status, &told.body["row"]), (400, &json!(1)));
    assert!(told.sent < 64 * 1024 * 1024, "{} bytes", told.sent);
    if let (Some(before), Some(after)) = (peak, peak_memory(&server)) {
        assert!(after < before + 16 * 1024, "{before} KiB, then {after} KiB");
    }
    assert_eq!(left(), before);
    assert_eq!(world.audit(), "every counter equals its rows");
}
