//! The values of a scenario file: numbers that cannot be impossible, and things that happen again.

use serde::Deserialize;

use super::Problem;

/// Longest true time that is simulated, seconds: 31 days.
const MAX_DURATION_S: f64 = 31.0 * 86_400.0;
/// Most entries of any list, once what happens again is written out.
const MAX_UNROLLED: usize = 10_000;

macro_rules! bounded {
    ($(#[$doc:meta])* $name:ident, $range:expr, $words:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Deserialize)]
        #[serde(try_from = "f64")]
        pub struct $name(pub(super) f64);
        impl $name {
            /// The number.
            pub const fn get(self) -> f64 {
                self.0
            }
        }
        impl TryFrom<f64> for $name {
            type Error = String;
            fn try_from(value: f64) -> Result<Self, String> {
                if ($range).contains(&value) {
                    Ok(Self(value))
                } else {
                    Err(format!("{value} is not {}", $words))
                }
            }
        }
    };
}

bounded!(
    /// A probability, or a share.
    Probability, 0.0..=1.0, "from 0 to 1");
bounded!(
    /// Nanoseconds of either sign.
    Nanos, -1e10..=1e10, "from -1e10 to 1e10 ns");
bounded!(
    /// Nanoseconds, not negative.
    Span, 0.0..=1e10, "from 0 to 1e10 ns");
bounded!(
    /// How far a clock is off, nanoseconds: up to eleven days.
    Phase, -1e15..=1e15, "from -1e15 to 1e15 ns");
bounded!(
    /// Parts per billion, of either sign.
    Ppb, -500_000.0..=500_000.0, "from -500000 to 500000 ppb");
bounded!(
    /// Parts per billion, not negative.
    Wander, 0.0..=10_000.0, "from 0 to 10000 ppb");
bounded!(
    /// An instant of true time, seconds after the start.
    Instant, 0.0..=MAX_DURATION_S, "from 0 to 2678400 s");
bounded!(
    /// A length of time, seconds.
    Seconds, 0.001..=MAX_DURATION_S, "from 0.001 to 2678400 s");
bounded!(
    /// A length of time, milliseconds.
    Millis, 0.001..=1e7, "from 0.001 to 1e7 ms");
bounded!(
    /// The shape of a gamma distribution.
    Shape, 0.05..=1_000.0, "from 0.05 to 1000");
bounded!(
    /// The shape of a Pareto distribution: with 1 or less it would have no mean.
    Tail, 1.05..=100.0, "from 1.05 to 100");
bounded!(
    /// The load of a queue.
    Utilisation, 0.0..=0.99, "from 0 to 0.99");
bounded!(
    /// The load of a queue that is simulated packet by packet.
    Load, 0.0..=0.95, "from 0 to 0.95");
bounded!(
    /// A figure over another one.
    Factor, 1.0..=1e6, "from 1 to 1e6");

/// An interval as PTP writes it, log2 seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct LogInterval(pub(super) i8);

impl LogInterval {
    /// The logarithm.
    pub const fn get(self) -> i8 {
        self.0
    }
}

impl TryFrom<i64> for LogInterval {
    type Error = String;
    fn try_from(value: i64) -> Result<Self, String> {
        match i8::try_from(value) {
            Ok(log @ -7..=6) => Ok(Self(log)),
            _ => Err(format!("{value} is not from -7 to 6")),
        }
    }
}

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct Count(pub(super) usize);

impl Count {
    /// The number.
    pub const fn get(self) -> usize {
        self.0
    }
}

impl Default for Count {
    /// Once.
    fn default() -> Self {
        Self(1)
    }
}

impl TryFrom<i64> for Count {
    type Error = String;
    fn try_from(value: i64) -> Result<Self, String> {
        match usize::try_from(value) {
            Ok(count @ 1..=MAX_UNROLLED) => Ok(Self(count)),
            _ => Err(format!("{value} is not from 1 to {MAX_UNROLLED}")),
        }
    }
}

/// A time from one instant to another.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Window {
    /// From here.
    pub from_s: Instant,
    /// To here.
    pub to_s: Instant,
    /// And again after so long.
    pub every_s: Option<Seconds>,
    /// So often altogether; to the end of the scenario unless given.
    pub count: Option<Count>,
}

/// Something that happens at an instant and may happen again.
pub(super) trait Recurring: Clone {
    /// The list that it stands in, for messages.
    const KEY: &'static str;
    /// When it begins and when it is over.
    fn span_s(&self) -> [f64; 2];
    fn again(&mut self) -> (&mut Option<Seconds>, &mut Option<Count>);
    /// The same at another time.
    fn shift(&mut self, by_s: f64);
}

impl Instant {
    /// The end of the longest scenario.
    pub const MAX: Self = Self(MAX_DURATION_S);

    pub(super) const fn shift(&mut self, by_s: f64) {
        self.0 += by_s;
    }
}

/// Implements [`Recurring`] for what has one instant, or an instant and an end.
macro_rules! recurring {
    ($name:ty, $key:literal, $at:ident) => {
        recurring!($name, $key, [$at, $at], $at);
    };
    ($name:ty, $key:literal, $from:ident, $to:ident) => {
        recurring!($name, $key, [$from, $to], $from, $to);
    };
    ($name:ty, $key:literal, [$from:ident, $to:ident], $($field:ident),+) => {
        impl $crate::sim::scenario::values::Recurring for $name {
            const KEY: &'static str = $key;
            fn span_s(&self) -> [f64; 2] {
                [self.$from.get(), self.$to.get()]
            }
            fn again(
                &mut self,
            ) -> (
                &mut Option<$crate::sim::scenario::Seconds>,
                &mut Option<$crate::sim::scenario::Count>,
            ) {
                (&mut self.every_s, &mut self.count)
            }
            fn shift(&mut self, by_s: f64) {
                $(self.$field.shift(by_s);)+
            }
        }
    };
}
pub(super) use recurring;

recurring!(Window, "from-s", from_s, to_s);

/// Writes out what happens again until `until_s`, in order of time.
pub(super) fn unroll<T: Recurring>(list: &mut Vec<T>, until_s: f64) -> Result<(), Problem> {
    if list.len() > super::MAX_ENTRIES {
        return Err((T::KEY, format!("more than {} entries", super::MAX_ENTRIES)));
    }
    let mut unrolled = Vec::new();
    for mut each in std::mem::take(list) {
        let [from_s, to_s] = each.span_s();
        if to_s < from_s {
            return Err((T::KEY, "to-s is before from-s".into()));
        }
        let (every_s, count) = each.again();
        let (every_s, count) = (every_s.take(), count.take());
        let Some(every_s) = every_s else {
            if count.is_some() {
                return Err((T::KEY, "count without every-s".into()));
            }
            unrolled.push(each);
            continue;
        };
        if to_s - from_s >= every_s.get() {
            return Err((T::KEY, "every-s is not longer than what is to happen again".into()));
        }
        let fitting = ((until_s - from_s) / every_s.get()).floor().max(0.0) as usize + 1;
        let count = count.map_or(fitting, |count| count.get().min(fitting));
        if unrolled.len() + count > MAX_UNROLLED {
            return Err((T::KEY, format!("happens more than {MAX_UNROLLED} times")));
        }
        unrolled.extend((0..count).map(|n| {
            let mut again = each.clone();
            again.shift(n as f64 * every_s.get());
            again
        }));
    }
    unrolled.sort_by(|a, b| a.span_s()[0].total_cmp(&b.span_s()[0]));
    *list = unrolled;
    Ok(())
}
