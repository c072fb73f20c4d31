//! Pictures of views, as they come out on a terminal of 80 by 24.

use config::admin::Event;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::json;

use super::*;
use crate::top::recent;
use crate::top::sample::Sample;

fn slot(state: &str, in_flight: u64, image: Option<&str>) -> serde_json::Value {
    let endpoints = match state {
        "empty" => json!([]),
        _ => json!([{ "address": "shop_BLUE:8080", "healthy": state != "unhealthy" }]),
    };
    json!({ "state": state, "endpoints": endpoints, "in_flight": in_flight, "image": image, "deployment": null,
            "since": null })
}

fn service(name: &str, blue: &serde_json::Value, green: &serde_json::Value) -> serde_json::Value {
    json!({ "name": name, "generation": 7, "origin": "admin", "live": "blue", "settings": {},
            "slots": { "blue": blue, "green": green } })
}

fn view(services: &[serde_json::Value]) -> View {
    let status = json!({
        "version": { "program": "bgproxy", "version": "0.1.0", "protocol": 1, "build": "", "pid": 1 },
        "started": "2026-11-20T10:00:00Z", "listeners": ["0.0.0.0:80"], "connections": 412, "requests": 99,
        "state_lost": [], "warnings": [], "services": services,
    });
    View {
        place: "docker at ssh://production".to_owned(),
        now: humantime::parse_rfc3339("2026-11-23T14:30:00Z").unwrap(),
        status: serde_json::from_value(status).unwrap(),
        paces: BTreeMap::new(),
        notes: Vec::new(),
        recent: Vec::new(),
        trouble: None,
        scroll: 0,
    }
}

fn picture(view: &View) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    terminal.draw(|frame| draw(view, frame.area(), frame.buffer_mut())).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..80).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..24).map(line).collect()
}

#[test]
fn a_switch_under_way_fits_into_80_by_24() {
    let shop = service("shop", &slot("draining", 3, Some("shop:41")), &slot("live", 14, Some("reg.test/team/shop:42")));
    let blog = service("blog", &slot("live", 0, Some("blog:1")), &slot("empty", 0, None));
    let mut view = view(&[blog, shop]);
    let metrics = |requests: u64| {
        format!(
            "bgproxy_requests_total{{service=\"shop\",slot=\"green\",class=\"2xx\"}} {requests}\n\
             bgproxy_requests_total{{service=\"shop\",slot=\"green\",class=\"5xx\"}} {}\n\
             bgproxy_request_duration_seconds_bucket{{service=\"shop\",slot=\"green\",le=\"0.1\"}} {requests}\n\
             bgproxy_request_duration_seconds_bucket{{service=\"shop\",slot=\"green\",le=\"+Inf\"}} {requests}\n",
            requests / 100
        )
    };
    view.paces = Sample::parse(&metrics(2400)).since(&Sample::parse(&metrics(0)), Duration::from_secs(2));
    view.notes = vec!["GREEN of shop is watched for 8 s more; BLUE stays warm".to_owned()];
    let flip =
        Event::Flipped { service: "shop".parse().unwrap(), live: Slot::Green, old: Some(Slot::Blue), flip_micros: 41 };
    view.recent.extend(recent::of_event(view.now, &flip));
    let expected = "\
bgproxy 0.1.0, up 3d 4h, 412 connections, 1212/s, docker at ssh://production

SERVICE       SLOT  STATE     HEALTH   REQ/S     P99  ERR/S FLIGHT IMAGE
blog          BLUE  live      1/1          -       -      -      0 blog:1
shop          BLUE  draining  1/1          -       -      -      3 shop:41
              GREEN live      1/1       1212    99ms     12     14 shop:42

GREEN of shop is watched for 8 s more; BLUE stays warm

LAST
11-23 14:30:00  shop: GREEN is live, BLUE drains";
    assert_eq!(picture(&view)[..11].join("\n"), expected);
    assert_eq!(picture(&view)[23], "q quits, arrows scroll");
    assert_eq!(text(&view, 80).trim_end(), expected);
}

#[test]
fn many_services_leave_room_for_what_happened_and_can_be_scrolled() {
    let many: Vec<_> =
        (10..40).map(|n| service(&format!("s{n}"), &slot("live", 0, None), &slot("empty", 0, None))).collect();
    let mut view = view(&many);
    view.recent = (0..RECENT).map(|n| format!("happening {n}")).collect();
    view.notes = (0..20).map(|n| format!("note {n}")).collect();
    let first = picture(&view);
    assert!(first[3].starts_with("s10"), "{first:#?}");
    for wanted in ["note 0", "happening 0", "q quits"] {
        assert!(first.iter().any(|line| line.starts_with(wanted)), "{wanted}: {first:#?}");
    }
    view.scroll = 1000;
    let last = picture(&view);
    assert!(last.iter().any(|line| line.starts_with("s39")), "{last:#?}");
    assert!(last[2].starts_with("SERVICE"), "{last:#?}");
    // What is printed has no bottom.
    let printed = text(&view, 80);
    assert!(printed.contains("s10 ") && printed.contains("s39 ") && printed.contains("note 19"), "{printed}");
}

#[test]
fn old_numbers_are_called_old() {
    let mut view = view(&[]);
    view.trouble = Some("these numbers are old: no proxy runs there; trying again".to_owned());
    let picture = picture(&view);
    assert_eq!(picture[2], "no services yet");
    assert!(picture.contains(&"these numbers are old: no proxy runs there; trying again".to_owned()), "{picture:#?}");
}

#[test]
fn a_picture_is_drawn_into_any_size() {
    let view = view(&[service("shop", &slot("live", 1, None), &slot("warm", 0, None))]);
    for (width, height) in [(0, 0), (1, 1), (10, 3), (80, 5), (300, 100)] {
        let area = Rect::new(0, 0, width, height);
        draw(&view, area, &mut Buffer::empty(area));
    }
}
