//! The guest's own account of its boot, as it stands in an answer of a transcript: `systemd-analyze time`, `blame` and
//! `critical-chain`, whichever step asked for them.

use crate::transcript::model::{ScenarioRecord, Transcript};

/// How long the parts of a boot took, milliseconds, in the order in which they happened: `firmware`, `loader`, `kernel`,
/// `initrd`, `userspace`, as far as the guest had them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Boot {
    /// Name and milliseconds.
    pub parts: Vec<(String, u64)>,
    /// All of them together, milliseconds.
    pub total_ms: u64,
    /// Units with how long their start took, milliseconds, slowest first.
    pub units: Vec<(String, u64)>,
}

const BEGIN: &str = "Startup finished in ";

/// What the guest of this transcript said about its boot, if a step asked.
pub fn boot(transcript: &Transcript) -> Option<Boot> {
    of_results(transcript.results())
}

/// The same of results.
pub fn of_results<'a>(results: impl Iterator<Item = &'a ScenarioRecord>) -> Option<Boot> {
    let steps = results.flat_map(|record| &record.steps);
    let streams = steps.filter_map(|step| step.answer.as_ref()?.streams.get("stdout"));
    streams.filter_map(|stream| read(&stream.excerpt)).next()
}

fn read(text: &str) -> Option<Boot> {
    let line = text.lines().find_map(|line| line.strip_prefix(BEGIN))?;
    let (parts, total) = line.split_once(" = ")?;
    let part = |part: &str| {
        let (time, name) = part.trim().rsplit_once(" (")?;
        Some((name.strip_suffix(')')?.to_owned(), milliseconds(time)?))
    };
    let parts = parts.split(" + ").map(part).collect::<Option<Vec<_>>>()?;
    let units = text.lines().filter_map(unit).collect();
    Some(Boot { parts, total_ms: milliseconds(total.trim_end_matches(['.', ' ']))?, units })
}

/// A line of `systemd-analyze blame`: right-aligned time, unit.
fn unit(line: &str) -> Option<(String, u64)> {
    let (time, name) = line.trim().rsplit_once(' ')?;
    let known = [".service", ".mount", ".device", ".socket", ".swap"].iter().any(|end| name.ends_with(end));
    if known && !time.contains(['@', '+']) { Some((name.to_owned(), milliseconds(time)?)) } else { None }
}

/// A time as systemd writes it: `1min 2.229s`, `803ms`.
fn milliseconds(text: &str) -> Option<u64> {
    let mut sum = 0_u64;
    for word in text.split_whitespace() {
        let digits = word.find(|letter: char| letter.is_ascii_alphabetic())?;
        let (number, unit) = word.split_at(digits);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let thousandths = format!("{fraction:0<3}").get(..3)?.parse::<u64>().ok()?;
        let number = whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(thousandths)?;
        let factor_of_ms = match unit {
            "h" => 3_600_000,
            "min" => 60_000,
            "s" => 1000,
            "ms" => 1,
            "us" => return Some(sum),
            _ => return None,
        };
        sum = sum.checked_add(number.checked_mul(factor_of_ms)? / 1000)?;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_s_times_are_read() {
        let check = |text, expected| assert_eq!(milliseconds(text), expected, "{text}");
        check("3.293s", Some(3293));
        check("1min 2.229s", Some(62_229));
        check("803ms", Some(803));
        check("1h 2min 3s", Some(3_723_000));
        check("2.1s", Some(2100));
        check("52us", Some(0));
        check("soon", None);
        check("99999999999999999999s", None);
        check("9999999999999999999h", None);
    }

    #[test]
    fn a_boot_is_read_with_its_units() {
        let text = "Startup finished in 3.293s (kernel) + 1.100s (initrd) + 32.229s (userspace) = 36.622s. \n\
                    graphical.target reached after 28.733s in userspace.\n\
                    22.456s matrix-synapse.service\n  803ms systemd-udev-trigger.service\n\
                    graphical.target @28.733s\n└─multi-user.target @28.720s\n  └─matrix-synapse.service @6.262s +22.456s\n";
        let boot = read(text).unwrap();
        let parts: Vec<_> = boot.parts.iter().map(|(name, ms)| (name.as_str(), *ms)).collect();
        assert_eq!(parts, [("kernel", 3293), ("initrd", 1100), ("userspace", 32_229)]);
        assert_eq!(boot.total_ms, 36_622);
        let units: Vec<_> = boot.units.iter().map(|(name, ms)| (name.as_str(), *ms)).collect();
        assert_eq!(units, [("matrix-synapse.service", 22_456), ("systemd-udev-trigger.service", 803)]);
        assert_eq!(read("nothing of the kind"), None);
    }
}
