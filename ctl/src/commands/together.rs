//! Services that go together: those that the file names behind `with` are switched with the one that is asked for.

use ::config::name::ServiceName;

use super::described::Described;
use super::options::Run;
use super::order::{Company, Order, deployment_id};
use super::rollout::Rollout;
use crate::context::Context;
use crate::error::Error;

/// Returns an order and those of the services that go with it, itself first.
///
/// # Errors
/// Every problem of the file.
pub(crate) fn orders(context: &Context<'_>, order: Order) -> Result<Vec<Order>, Error> {
    let found = if order.options.alone { None } else { Described::find(context)? };
    let Some(Described { project, .. }) = found else { return Ok(vec![order]) };
    let with = project.together_with(&order.service);
    if with.is_empty() {
        return Ok(vec![order]);
    }
    let described = project.services.iter().find(|service| service.name == order.service);
    let of_file = described.and_then(|service| service.image.as_deref());
    // One id for all of them, by which a rollback knows what became live together.
    let deployment = Some(deployment_id());
    let mut orders = vec![Order {
        company: Company {
            deployment: deployment.clone(),
            with: with.iter().map(|service| service.name.clone()).collect(),
            follows: false,
        },
        ..order.clone()
    }];
    for service in with {
        let options = asked_of_all(&order.options);
        let image = image(order.image.as_deref(), of_file, service.image.as_deref()).filter(|_| !options.go_on);
        orders.push(Order {
            service: service.name.clone(),
            image: image.map(str::to_owned),
            is_pushed: order.is_pushed,
            company: Company { deployment: deployment.clone(), with: Vec::new(), follows: true },
            options,
        });
    }
    Ok(orders)
}

/// Returns the image of a service that goes with another: its own, unless the file gives it none or the same as that one's; then
/// what was typed for that one is meant for it, too.
pub(super) fn image<'i>(typed: Option<&'i str>, of_file: Option<&'i str>, own: Option<&'i str>) -> Option<&'i str> {
    match own {
        Some(own) if Some(own) != of_file => Some(own),
        Some(_) | None => typed.or(of_file),
    }
}

/// Returns what of the options is asked of the run, and so of all services; the rest says how the one runs that was named.
fn asked_of_all(options: &Run) -> Run {
    let rollout =
        Rollout { detach: options.rollout.detach, lock_wait: options.rollout.lock_wait, ..Rollout::default() };
    Run {
        rollout,
        no_flip: options.no_flip,
        go_on: options.go_on,
        dry_run: options.dry_run,
        pull: options.pull.clone(),
        note: options.note.clone(),
        ..Run::default()
    }
}

/// Tells who goes with whom, in a line.
pub(crate) fn words(first: &ServiceName, with: &[&ServiceName]) -> String {
    let names: Vec<&str> = with.iter().map(|name| name.as_str()).collect();
    format!("{first} goes with {}: all are prepared, and none is live before all are healthy", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_typed_image_is_for_all_that_have_no_other_one() {
        for (typed, of_file, own, wanted) in [
            (Some("shop:2"), None, None, Some("shop:2")),
            (Some("shop:2"), Some("shop:1"), None, Some("shop:2")),
            (Some("shop:2"), Some("shop:1"), Some("shop:1"), Some("shop:2")),
            (Some("shop:2"), Some("shop:1"), Some("mail:7"), Some("mail:7")),
            (None, Some("shop:1"), None, Some("shop:1")),
            (None, None, Some("mail:7"), Some("mail:7")),
            (None, None, None, None),
        ] {
            assert_eq!(image(typed, of_file, own), wanted, "{typed:?} {of_file:?} {own:?}");
        }
    }
}
