//! iceoryx2's publish-subscribe, a service each way: buffers that block who publishes when full, and none overwritten.
//! To sleep, its event service: a notice follows each item. Its files are in a folder of ours while it runs.

use super::{Hands, Item, Side, ends};
use crate::beside::leftovers;
use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use std::fmt::Debug;
use std::hint::spin_loop;

type Service = ipc::Service;

/// What names in shared memory begin with; one of them iceoryx2 never removes.
const WORD: &str = "tarragon-bench-iox2";

/// Where both sides find a case: a folder, the beginning of names in shared memory, and the name of the service.
pub(crate) fn address(folder: &std::path::Path, case: &str) -> String {
    format!("{}+{}+{case}", folder.display(), leftovers::name(WORD))
}

/// Removes what is left in shared memory when no side is open any more.
pub(crate) fn sweep() {
    leftovers::sweep(WORD);
}

/// A node, and the name of the service.
fn node(address: &str) -> (Node<Service>, String) {
    let parts: Vec<&str> = address.split('+').collect();
    let [root, prefix, case] = parts[..] else { panic!("a folder, a prefix and a case") };
    set_log_level(LogLevel::Fatal);
    let mut config = Config::default();
    config.global.set_root_path(&iceoryx2::prelude::Path::new(root.as_bytes()).expect("a path"));
    config.global.prefix = FileName::new(prefix.as_bytes()).expect("a name");
    (NodeBuilder::new().config(&config).create().expect("a node"), case.to_owned())
}

fn service_name(base: &str, way: usize) -> ServiceName {
    format!("{base}-{way}").as_str().try_into().expect("a name")
}

/// One of two sides of a channel of items.
pub(crate) struct Iceoryx<T: Item + Debug + ZeroCopySend> {
    to: Publisher<Service, T, ()>,
    from: Subscriber<Service, T, ()>,
    /// For who sleeps.
    events: Option<(Notifier<Service>, Listener<Service>)>,
    _node: Node<Service>,
}

impl<T: Item + Debug + ZeroCopySend> Iceoryx<T> {
    /// Side 0 makes the services, before side 1 comes: two that make one at a time may take each other for dead.
    pub(crate) fn open(address: &str, which: usize, sleeps: bool) -> Self {
        let (node, base) = node(address);
        // A round trip has one item under way; a larger buffer would only cost.
        let buffer = if T::WORDS == 1 { 2 } else { 1024 };
        let service = |way: usize| {
            let builder = node.service_builder(&service_name(&base, way)).publish_subscribe::<T>();
            let builder = builder.enable_safe_overflow(false).subscriber_max_buffer_size(buffer);
            builder.max_publishers(1).max_subscribers(1).open_or_create().expect("a service")
        };
        let out = service(which);
        let publisher = out.publisher_builder();
        let to = publisher.backpressure_strategy(BackpressureStrategy::RetryUntilDelivered).create();
        let from = service(1 - which).subscriber_builder().create().expect("a subscriber");
        let events = sleeps.then(|| {
            let event = |way: usize| {
                let service = node.service_builder(&service_name(&base, 2 + way)).event();
                service.open_or_create().expect("a service")
            };
            let notifier = event(which).notifier_builder().create().expect("a notifier");
            (notifier, event(1 - which).listener_builder().create().expect("a listener"))
        });
        Self { to: to.expect("a publisher"), from, events, _node: node }
    }
}

impl<T: Item + Debug + ZeroCopySend> Side<T> for Iceoryx<T> {
    fn send(&mut self, item: T) {
        let sample = self.to.loan_uninit().expect("a sample").write_payload(item);
        sample.send().expect("the other side lives");
        if let Some((notifier, _)) = &self.events {
            notifier.notify().expect("the other side lives");
        }
    }

    fn receive(&mut self) -> T {
        loop {
            if let Some(sample) = self.from.receive().expect("the other side lives") {
                return *sample;
            }
            spin_loop();
        }
    }

    fn park(&mut self) -> T {
        let (_, listener) = self.events.as_ref().expect("opened to sleep");
        listener.blocking_wait(|_| {}).expect("the other side lives");
        self.receive()
    }
}

/// One of two sides of a channel of bytes in place: side 0 sends, side 1 takes.
pub(crate) struct Slices {
    to: Option<Publisher<Service, [u8], ()>>,
    from: Option<Subscriber<Service, [u8], ()>>,
    _node: Node<Service>,
}

impl Slices {
    pub(crate) fn open(address: &str, which: usize, size: usize) -> Self {
        let (node, base) = node(address);
        let builder = node.service_builder(&service_name(&base, 0)).publish_subscribe::<[u8]>();
        let builder = builder
            .enable_safe_overflow(false)
            .subscriber_max_buffer_size(1)
            .payload_alignment(Alignment::new(64).expect("a power of two"));
        let service = builder.max_publishers(1).max_subscribers(1).open_or_create().expect("a service");
        let to = (which == 0).then(|| {
            let publisher = service.publisher_builder().initial_max_slice_len(size);
            publisher.create().expect("a publisher")
        });
        let from = (which == 1).then(|| service.subscriber_builder().create().expect("a subscriber"));
        Self { to, from, _node: node }
    }
}

impl Hands for Slices {
    fn hand(&mut self, bytes: &[u8], ready: impl FnOnce()) {
        let publisher = self.to.as_ref().expect("the side that sends");
        let sample = publisher.loan_slice_uninit(bytes.len()).expect("a sample").write_from_slice(bytes);
        ready();
        assert_eq!(sample.send().expect("the other side lives"), 1, "somebody takes it");
    }

    fn take(&mut self) -> (u64, u64) {
        let subscriber = self.from.as_ref().expect("the side that takes");
        loop {
            if let Some(sample) = subscriber.receive().expect("the other side lives") {
                return ends(&sample);
            }
            spin_loop();
        }
    }
}
