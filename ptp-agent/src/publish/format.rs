//! How a command tells its results: for people, or for programs.

/// See the module's paragraph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For whoever looks at a terminal.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

impl Format {
    /// `Json` where so, as a switch of the command line says it.
    pub const fn json_if(is_json: bool) -> Self {
        if is_json { Self::Json } else { Self::Text }
    }

    /// Whether it is for programs.
    pub const fn is_json(self) -> bool {
        matches!(self, Self::Json)
    }
}
