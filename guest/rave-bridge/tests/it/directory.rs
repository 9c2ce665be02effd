//! As much of PostgreSQL's protocol as it takes to answer the bridge's one question.

use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::fakes::Shared;

const TEXT: i32 = 25;

/// Answers on the socket that a client looks for in `folder`.
pub async fn serve(folder: &Path, state: Shared) {
    let listener = UnixListener::bind(folder.join(".s.PGSQL.5432")).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let state = state.clone();
            tokio::spawn(async move {
                let _ = talk(stream, state).await;
            });
        }
    });
}

async fn talk(mut stream: UnixStream, state: Shared) -> std::io::Result<()> {
    let length = stream.read_i32().await?;
    let mut startup = vec![0; length as usize - 4];
    stream.read_exact(&mut startup).await?;
    let mut answer = message(b'R', &0_i32.to_be_bytes());
    answer.extend(message(b'Z', b"I"));
    stream.write_all(&answer).await?;
    let mut answer = vec![];
    let mut user_id = String::new();
    loop {
        let kind = stream.read_u8().await?;
        let length = stream.read_i32().await?;
        let mut body = vec![0; length as usize - 4];
        stream.read_exact(&mut body).await?;
        if state.lock().unwrap().directory_down {
            return Ok(());
        }
        match kind {
            b'P' => answer.extend(message(b'1', b"")),
            b'D' => {
                let parameters = [&2_i16.to_be_bytes()[..], &TEXT.to_be_bytes(), &TEXT.to_be_bytes()].concat();
                answer.extend(message(b't', &parameters));
                let column = [
                    b"external_id\0",
                    &0_i32.to_be_bytes()[..],
                    &1_i16.to_be_bytes(),
                    &TEXT.to_be_bytes(),
                    &(-1_i16).to_be_bytes(),
                    &(-1_i32).to_be_bytes(),
                    &1_i16.to_be_bytes(),
                ];
                answer.extend(message(b'T', &[&1_i16.to_be_bytes()[..], &column.concat()].concat()));
            }
            b'B' => {
                let parameters = parameters(&body);
                assert_eq!(parameters[0], "oidc-gitlab");
                user_id.clone_from(&parameters[1]);
                answer.extend(message(b'2', b""));
            }
            b'E' => {
                let external = state.lock().unwrap().external.get(&user_id).cloned();
                if let Some(id) = external {
                    let row = [&1_i16.to_be_bytes()[..], &(id.len() as i32).to_be_bytes(), id.as_bytes()].concat();
                    answer.extend(message(b'D', &row));
                }
                answer.extend(message(b'C', b"SELECT 1\0"));
            }
            b'S' => {
                answer.extend(message(b'Z', b"I"));
                stream.write_all(&std::mem::take(&mut answer)).await?;
            }
            _ => return Ok(()),
        }
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as i32 + 4).to_be_bytes(), body].concat()
}

/// The parameters of a Bind message: portal and statement names, formats, then length and bytes of each.
fn parameters(body: &[u8]) -> Vec<String> {
    let mut rest = body;
    let mut take = |count: usize| {
        let (taken, left) = rest.split_at(count);
        rest = left;
        taken
    };
    for _ in 0..2 {
        while take(1) != [0] {}
    }
    let formats = i16::from_be_bytes(take(2).try_into().unwrap());
    take(formats as usize * 2);
    let count = i16::from_be_bytes(take(2).try_into().unwrap());
    (0..count)
        .map(|_| {
            let length = i32::from_be_bytes(take(4).try_into().unwrap());
            String::from_utf8(take(length as usize).to_vec()).unwrap()
        })
        .collect()
}
