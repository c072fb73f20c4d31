//! Any call of the admin protocol, and any JSON as its body: what is read is written as it was, and reads the same again.
#![no_main]

use config::admin::Call;
use config::admin::request::{Delete, Drain, Endpoints, Flip, Lease, ServiceSettings, Stage};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|input: (&str, &str, &str)| {
    let (method, path, body) = input;
    if let Ok(call) = Call::parse(method, path) {
        assert_eq!(Call::parse(call.method(), &call.path()).unwrap(), call);
    }
    round::<ServiceSettings>(body);
    round::<Stage>(body);
    round::<Flip>(body);
    round::<Drain>(body);
    round::<Delete>(body);
    round::<Endpoints>(body);
    round::<Lease>(body);
});

fn round<T: DeserializeOwned + Serialize>(text: &str) {
    let Ok(read) = serde_json::from_str::<T>(text) else { return };
    let written = serde_json::to_value(&read).unwrap();
    // Durations are written to the millisecond: what was written once is written the same again.
    let again: T = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(serde_json::to_value(&again).unwrap(), written);
}
