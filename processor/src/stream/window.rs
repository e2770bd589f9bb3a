//! Windows and the panes they are made of, in whole microseconds since 1970, UTC.
//!
//! A window is `[start, end)` with starts at `origin + k × slide`; the slide need not divide the size. A pane is the
//! tumbling slice of `gcd(size, slide)`: every window is a run of whole panes, so rows are aggregated once per pane
//! and panes are merged once per window.

/// Longest window: 100,000 days. Keeps every sum of an event time and a size within 64 bits.
const SIZE_MAX: i64 = 100_000 * 86_400 * 1_000_000;

/// Size, slide and origin of a job's windows, microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub(crate) struct WindowSpec {
    size: i64,
    slide: i64,
    origin: i64,
}

impl WindowSpec {
    /// Checks the three against each other.
    ///
    /// # Errors
    /// What is wrong and what would do, as two sentences.
    pub(crate) fn try_new(size: i64, slide: i64, origin: i64) -> Result<Self, (String, String)> {
        let refuse = |message: &str, hint: &str| Err((message.to_owned(), hint.to_owned()));
        if size <= 0 || slide <= 0 {
            return refuse("a window's size and slide must be longer than zero", "use a size such as '1 hour'");
        }
        if size > SIZE_MAX {
            return refuse("a window cannot be longer than 100000 days", "use a batch range instead of a window");
        }
        if slide > size {
            return refuse(
                "the slide is longer than the window size",
                "rows between windows would be lost; use a slide of at most the size",
            );
        }
        if origin.abs() >= slide {
            return refuse("the window's start offset is not shorter than its slide", "use an offset below the slide");
        }
        Ok(Self { size, slide, origin: origin.rem_euclid(slide) })
    }

    /// Length of a window.
    pub(crate) const fn size(self) -> i64 {
        self.size
    }

    /// Distance between the starts of two windows.
    pub(crate) const fn slide(self) -> i64 {
        self.slide
    }

    /// Where windows start, modulo the slide.
    pub(crate) const fn origin(self) -> i64 {
        self.origin
    }

    /// Length of a pane.
    pub(crate) const fn pane_width(self) -> i64 {
        gcd(self.size, self.slide)
    }

    /// Start of the pane that holds `time`.
    pub(crate) const fn pane_of(self, time: i64) -> i64 {
        time - (time - self.origin).rem_euclid(self.pane_width())
    }

    /// Starts of the windows that hold the pane starting at `pane`, latest first.
    pub(crate) fn windows_of(self, pane: i64) -> impl Iterator<Item = i64> {
        let last = pane - (pane - self.origin).rem_euclid(self.slide);
        (0..).map(move |back| last - back * self.slide).take_while(move |start| start + self.size > pane)
    }

    /// The least window end after `time`.
    pub(crate) const fn end_after(self, time: i64) -> i64 {
        time + self.slide - (time - self.origin - self.size).rem_euclid(self.slide)
    }

    /// End of the last window that holds `pane`: when the watermark has reached it, the pane is of no more use.
    pub(crate) fn last_end(self, pane: i64) -> i64 {
        pane - (pane - self.origin).rem_euclid(self.slide) + self.size
    }
}

const fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn specs() -> impl Strategy<Value = WindowSpec> {
        (1..500_i64, 1..500_i64, 0..500_i64)
            .prop_filter_map("slide within size, origin within slide", |(size, slide, origin)| {
                WindowSpec::try_new(size, slide, origin).ok()
            })
    }

    proptest! {
        #[test]
        fn an_event_lies_in_every_window_that_covers_it_and_in_no_other(spec in specs(), time in -100_000..100_000_i64) {
            let got: Vec<i64> = spec.windows_of(spec.pane_of(time)).collect();
            // The dumb way: try every aligned start near the event.
            let aligned = |start: &i64| (start - spec.origin).rem_euclid(spec.slide()) == 0;
            let want: Vec<i64> =
                (time - spec.size() + 1..=time).rev().filter(aligned).collect();
            prop_assert_eq!(&got, &want);
            let (low, high) = (spec.size() / spec.slide(), (spec.size() + spec.slide() - 1) / spec.slide());
            prop_assert!((low..=high).contains(&i64::try_from(got.len()).expect("few")));
        }

        #[test]
        fn the_panes_of_a_window_tile_it(spec in specs(), time in -100_000..100_000_i64) {
            let width = spec.pane_width();
            for start in spec.windows_of(spec.pane_of(time)) {
                prop_assert_eq!(spec.size() % width, 0);
                prop_assert_eq!(spec.pane_of(start), start);
                for pane in (start..start + spec.size()).step_by(usize::try_from(width).expect("small")) {
                    prop_assert!(spec.windows_of(pane).any(|other| other == start));
                    prop_assert!(spec.last_end(pane) >= start + spec.size());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn the_next_end_is_the_first_aligned_one(spec in specs(), time in -100_000..100_000_i64) {
            let aligned = |end: &i64| (end - spec.size() - spec.origin).rem_euclid(spec.slide()) == 0;
            prop_assert_eq!(Some(spec.end_after(time)), (time + 1..).find(aligned));
        }
    }

    #[test]
    fn a_slide_that_skips_rows_is_refused() {
        assert!(WindowSpec::try_new(60, 90, 0).is_err_and(|(_, hint)| hint.contains("lost")));
        assert!(WindowSpec::try_new(0, 1, 0).is_err());
        assert!(WindowSpec::try_new(60, 10, 10).is_err());
    }
}
