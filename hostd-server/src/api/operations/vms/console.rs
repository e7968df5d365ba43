//! Machines' serial consoles.

use super::super::NoQuery;
use super::{Result, record};
use crate::{
    api::{ApiError, Call, route::Raw},
    host::Console,
    http::{Message, Response, WebSocket},
};
use alloc::{boxed::Box, vec, vec::Vec};
use core::task::Poll;

pub(super) async fn console(call: Call, _: NoQuery, (): ()) -> Result<Raw> {
    let record = record(&call)?;
    if !call.upgrade {
        return Err(ApiError::new(
            426,
            "upgradeRequired",
            "The console is a WebSocket",
            "Connect with a WebSocket client, or tessera vm console.",
        ));
    }
    let console = call.api.host.vm_console(&record.config.name).await?;
    let mut response = Response::new(101);
    response.upgrade = Some(Box::new(move |socket| Box::pin(talk(socket, console))));
    Ok(Raw(response))
}

/// Carries bytes both ways until one side ends.
pub(in crate::api::operations) async fn talk(mut socket: Box<dyn WebSocket>, mut console: Box<dyn Console>) {
    let mut typed: Vec<u8> = Vec::new();
    let mut buffer = vec![0; 4096];
    core::future::poll_fn(|context| {
        loop {
            let mut moved = false;
            if typed.is_empty() {
                match socket.poll_receive(context) {
                    Poll::Ready(Some(Message::Binary(bytes))) => (typed, moved) = (bytes, true),
                    Poll::Ready(Some(Message::Text(text))) => (typed, moved) = (text.into_bytes(), true),
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => {}
                }
            }
            if !typed.is_empty() {
                if let Poll::Ready(count) = console.poll_write(context, &typed) {
                    if count == 0 {
                        return Poll::Ready(());
                    }
                    typed.drain(..count.min(typed.len()));
                    moved = true;
                }
            }
            match socket.poll_ready(context) {
                Poll::Ready(false) => return Poll::Ready(()),
                Poll::Ready(true) => {
                    if let Poll::Ready(count) = console.poll_read(context, &mut buffer) {
                        if count == 0 {
                            return Poll::Ready(());
                        }
                        socket.send(Message::Binary(buffer[..count].to_vec()));
                        moved = true;
                    }
                }
                Poll::Pending => {}
            }
            if !moved {
                return Poll::Pending;
            }
        }
    })
    .await;
}
