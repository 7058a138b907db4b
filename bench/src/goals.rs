//! Tables of figures, with goals.

/// The middle one. Of two, the larger.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Figures, and the goals beside them.
pub(crate) struct Table(Vec<[String; 4]>);

impl Table {
    pub(crate) fn new(title: &str) -> Table {
        Table(vec![[title, "figure", "goal", ""].map(str::to_owned)])
    }

    /// A figure without a goal.
    pub(crate) fn row(&mut self, what: impl Into<String>, figure: impl Into<String>) {
        self.0
            .push([what.into(), figure.into(), String::new(), String::new()]);
    }

    /// A figure with a goal, and whether it is reached.
    pub(crate) fn goal(
        &mut self,
        what: impl Into<String>,
        figure: impl Into<String>,
        goal: &str,
        reached: bool,
    ) {
        let reached = if reached { "reached" } else { "MISSED" };
        self.0.push([
            what.into(),
            figure.into(),
            goal.to_owned(),
            reached.to_owned(),
        ]);
    }

    pub(crate) fn print(&self, quick: bool) {
        for (nth, [what, figure, goal, reached]) in self.0.iter().enumerate() {
            let reached = if quick { "" } else { reached };
            println!("| {what} | {figure} | {goal} | {reached} |");
            if nth == 0 {
                println!("| --- | --- | --- | --- |");
            }
        }
        println!();
    }
}
