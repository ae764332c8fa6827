//! Both sides of a service that means harm: `serves` is a server that gives away what it was lent and
//! dies of what it is asked for; `calls EDGE` its client.

use libipc::cap::{CNode, Cap, Notification};
use libipc::raw::{self, Message, call};
use libipc::server::{Outcome, Request, Server, run};
use libipc::start::{StartInfo, slot};
use libipc::{Caller, buffer};
use skink_abi::message::ReceiveWindow;
use skink_abi::{CPtr, CapRights, Error, MessageInfo};
use skink_protocols::hello::{Greeting, Hello, HelloClient, HelloError, HelloServer};

/// What the server is asked for, beside greetings: to give away what it holds.
const GIVE: u64 = 1;
/// What it gives, in this order.
const GIVEN: [CPtr; 3] = [slot::ENDPOINT, slot::SUPERVISOR, slot::NOTIFICATION];
/// Free slots of the client.
const WINDOW: u64 = 100;
const REPLY: u64 = 110;

struct Mortal;

impl HelloServer for Mortal {
    fn greet(&mut self, _: Caller, name: &str) -> Result<Greeting, HelloError> {
        assert!(!name.starts_with("death"), "asked to die by {name}");
        Ok(Greeting { text: name.try_into().unwrap_or_default(), count: 0 })
    }

    fn add(&mut self, _: Caller, a: u64, b: u64) -> u64 {
        a.wrapping_add(b)
    }
}

impl Server for Mortal {
    fn on_message(&mut self, request: &Request<'_>) -> Outcome {
        if request.message().info.label() == GIVE {
            buffer::set_send_caps(&GIVEN);
            return Outcome::Answer(MessageInfo::new(GIVE, 0, GIVEN.len()), [0; 4]);
        }
        Hello::dispatch(self, request)
    }
}

/// Serves for ever.
pub fn serves() -> ! {
    run(&mut Mortal)
}

/// Takes what the server gives away, has it die of a request, and tries what was taken; then goes on
/// with requests of which it dies.
pub fn calls(start: &'static StartInfo, edge: &str) {
    let session = start.session(edge, 0).expect("an edge of this name");
    let window = ReceiveWindow { cnode: slot::CNODE, slot: WINDOW, count: GIVEN.len() as u64 };
    buffer::set_receive_window(window);
    let taken = call(session.endpoint.cptr(), MessageInfo::new(GIVE, 0, 0), [0; 4]);
    log::info!("takes {} capabilities", taken.map_or(99, |answer| answer.info.caps()));
    let client = HelloClient::new(session);
    let greet = |name: &str| match client.greet(name) {
        Err(error) => log::info!("{name}: {error}"),
        Ok(greeting) => log::info!("{name} greets as {}", greeting.text),
    };
    greet("death 1");
    tries_what_was_taken();
    greet("life");
    for number in 2..=6 {
        greet(&alloc::format!("death {number}"));
    }
    greet("life after death");
}

fn tries_what_was_taken() {
    let [endpoint, supervisor, notification] = [0, 1, 2].map(|index| CPtr(WINDOW + index));
    // Without a reply object a call that is received fails its caller, who then knows of the theft.
    let received = raw::nb_recv(endpoint, CPtr(0)).map(|message: Message| message.badge);
    let spoke = raw::nb_send(supervisor, MessageInfo::new(GIVE, 0, 0), [0; 4]);
    let polled = Cap::<Notification>::new(notification).poll();
    let place = Cap::<CNode>::new(slot::CNODE).slot(CPtr(REPLY));
    let source = Cap::<CNode>::new(slot::CNODE).slot(endpoint);
    let copied = place.copy(source, CapRights::all());
    // Not `WouldBlock`, which is said of an endpoint that is there.
    let is_missing = received.is_err_and(|error| error.error == Error::InvalidCapability);
    let failed = [is_missing, spoke.is_err(), polled.is_err(), copied.is_err()];
    log::info!("what was taken is gone: {failed:?}");
}
