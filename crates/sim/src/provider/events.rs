//! The events of a provider on their way to the agent.

use std::sync::Arc;

use coracle_provider::{Event, EventStream, RuntimeService};
use futures::StreamExt;
use futures::stream::unfold;
use tokio::sync::mpsc;

use super::SimProvider;
use crate::faults::EventFate;

/// Events that the agent may be behind.
const BUFFER: usize = 256;

/// Events until the provider goes down. Some are lost without a word, told twice, or after the next one.
pub(super) fn subscribe(provider: Arc<SimProvider>) -> EventStream {
    let (sender, receiver) = mpsc::channel(BUFFER);
    let events = provider.inner.subscribe();
    tokio::spawn(async move {
        let down = provider.clone();
        tokio::select! {
            biased;
            () = down.went_down.notified() => {}
            () = hand_on(&provider, events, sender) => {}
        }
    });
    unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) }).boxed()
}

async fn hand_on(provider: &SimProvider, mut events: EventStream, sender: mpsc::Sender<Event>) {
    let mut held = None;
    loop {
        let event = tokio::select! {
            biased;
            () = sender.closed() => return,
            event = events.next() => event,
        };
        let Some(event) = event else { return };
        if provider.is_down() {
            return;
        }
        let mut told = Vec::new();
        match provider.own.event(&provider.faults, &provider.dice) {
            EventFate::Told => told.push(event),
            EventFate::Doubled => told.extend([event.clone(), event]),
            EventFate::Lost => {}
            EventFate::Held => {
                if let Some(earlier) = held.replace(event) {
                    told.push(earlier);
                }
                for event in told {
                    // Whoever is gone is seen above.
                    let _ = sender.send(event).await;
                }
                continue;
            }
        }
        told.extend(held.take());
        for event in told {
            let _ = sender.send(event).await;
        }
    }
}
