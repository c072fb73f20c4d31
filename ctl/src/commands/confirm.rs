//! A question before something goes or changes for good.

use std::io::IsTerminal;

use crate::context::Context;
use crate::error::Error;

/// Asks before something goes; without a terminal nothing is asked.
///
/// # Errors
/// Wrong usage with the list of what would go, where nobody can be asked or the answer is no.
pub(crate) async fn ask(context: &Context<'_>, going: &[String]) -> Result<(), Error> {
    confirm(context, &Question { nothing: "nothing was removed", what: "this would go:", lines: going }).await
}

/// What is asked before something is done.
pub(crate) struct Question<'a> {
    /// What holds where the answer is no.
    pub(crate) nothing: &'a str,
    /// What stands above the lines.
    pub(crate) what: &'a str,
    /// What would be done.
    pub(crate) lines: &'a [String],
}

/// As [`ask`], for what is not removed.
///
/// # Errors
/// As of [`ask`].
pub(crate) async fn confirm(context: &Context<'_>, question: &Question<'_>) -> Result<(), Error> {
    if context.global.yes {
        return Ok(());
    }
    let Question { nothing, what, lines } = question;
    let refused = |message: &str| {
        let error = Error::usage(message).hint("`-y` goes ahead without asking");
        lines.iter().fold(error, |error, line| error.detail(line.clone()))
    };
    if !std::io::stdin().is_terminal() {
        return Err(refused(&format!("{nothing}, since nobody can be asked here; {what}")));
    }
    context.ui.say(what);
    lines.iter().for_each(|line| context.ui.say(&format!("  {line}")));
    context.ui.say("go ahead? [y/N]");
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    match answer.await {
        Ok(Ok(line)) if matches!(line.trim(), "y" | "Y" | "yes") => Ok(()),
        _ => Err(refused(nothing)),
    }
}
