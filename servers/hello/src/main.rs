//! The glue of the hello server: what every server's binary looks like.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use hello::Greeter;
    use libipc::server::{self, Outcome, Request, Server};
    use libipc::start::StartInfo;
    use skink_protocols::hello::Hello;

    libipc::main!(main);

    struct Service(Greeter);

    impl Server for Service {
        fn on_message(&mut self, request: &Request<'_>) -> Outcome {
            Hello::dispatch(&mut self.0, request)
        }
    }

    fn main(_: &'static StartInfo) -> i32 {
        server::run(&mut Service(Greeter::default()))
    }
}

/// The server runs in the guest only.
#[cfg(not(target_os = "none"))]
fn main() {}
