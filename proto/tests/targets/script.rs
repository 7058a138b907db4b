//! The bytes of a script, from the front. What is missing reads as zero.

/// What is left of a script.
pub struct Script<'a>(pub &'a [u8]);

impl<'a> Script<'a> {
    pub fn is_done(&self) -> bool {
        self.0.is_empty()
    }

    pub fn u8(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }

    pub fn flag(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// A run of bytes with its length before it.
    pub fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.u16()).min(self.0.len());
        let (run, rest) = self.0.split_at(length);
        self.0 = rest;
        run
    }

    /// A length, small ones and the edges of records more often.
    pub fn length(&mut self) -> usize {
        match self.u8() {
            small @ 0..=127 => usize::from(small),
            128..=159 => usize::from(self.u16()),
            160..=191 => 65_536 - usize::from(self.u8()),
            192..=223 => 65_536 + usize::from(self.u8()),
            224..=239 => 131_072,
            _ => usize::from(self.u16()) * 4,
        }
    }
}
