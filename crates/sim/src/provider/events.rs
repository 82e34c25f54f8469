//! The events of a provider on their way to the agent.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_provider::{Event, EventStream, RuntimeService};
use futures::StreamExt;
use futures::stream::unfold;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::SimProvider;
use crate::faults::EventFate;

/// Events that the agent may be behind.
const BUFFER: usize = 256;

/// Events until the provider goes down. Some are lost without a word, told twice, or late.
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

/// Events that are on their way: when they arrive, and in which order they were sent.
#[derive(Default)]
struct OnTheWay {
    events: BTreeMap<(Instant, u64), Event>,
    sent: u64,
}

impl OnTheWay {
    fn add(&mut self, at: Instant, event: Event) {
        self.sent += 1;
        self.events.insert((at, self.sent), event);
    }

    fn next(&self) -> Option<Instant> {
        self.events.first_key_value().map(|((at, _), _)| *at)
    }
}

async fn hand_on(provider: &SimProvider, mut events: EventStream, sender: mpsc::Sender<Event>) {
    let (faults, dice) = (&provider.faults, &provider.dice);
    let mut on_the_way = OnTheWay::default();
    // Until then nothing gets through.
    let mut stalled = Instant::now();
    loop {
        let next = on_the_way.next();
        let event = tokio::select! {
            biased;
            () = sender.closed() => return,
            event = events.next() => event,
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                let Some((_, event)) = on_the_way.events.pop_first() else { continue };
                // Whoever is gone is seen above.
                let _ = sender.send(event).await;
                continue;
            }
        };
        let Some(event) = event else { return };
        if provider.is_down() {
            return;
        }
        let late = |now: Instant| now + dice.millis(1..6000);
        let now = Instant::now();
        let fate = provider.own.event(faults, dice);
        if fate == EventFate::Stalled {
            stalled = stalled.max(late(now));
        }
        let soonest = now.max(stalled);
        match fate {
            EventFate::Lost => {}
            EventFate::Late => on_the_way.add(late(soonest), event),
            EventFate::Doubled => {
                on_the_way.add(late(soonest), event.clone());
                on_the_way.add(soonest, event);
            }
            EventFate::Told | EventFate::Stalled => on_the_way.add(soonest, event),
        }
    }
}
