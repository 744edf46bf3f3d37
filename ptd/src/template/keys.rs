//! The keys of documents: a table that says of each what it may hold and what it is for. The grammar checks keys
//! against it, and the JSON Schema is made from it.

/// What a key may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// A list of names to declare.
    Names,
    /// Keywords, each with a name to declare, or a default.
    ImportKeywords,
    /// Keywords, each with a name to declare.
    Keywords,
    /// A value.
    Value,
    /// A list of values.
    Values,
    /// Values by name.
    ValuesByName,
    /// An environment: values by name, or one value that is such a mapping.
    Environment,
    /// `function`, `process`, `job`, or a name.
    TaskKind,
    /// A whole number that is not negative, or a value that is one.
    Count,
    /// A number, or a value that is one.
    Number,
    /// Bytes: a number, or text with a unit.
    Bytes,
    /// One whole number or a list of them.
    Codes,
    /// A mapping of these keys.
    Table(&'static Table),
    /// A list of mappings of these keys.
    Tables(&'static Table),
    /// A list of steps of a workflow.
    Steps,
    /// A step, or a list of steps.
    StepOrSteps,
    /// A template: a path, or a mapping.
    TemplateOrPath,
    /// What names range over.
    Ranges,
    /// `true` or `false`.
    Bool,
}

/// A key.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    /// What it is for, in one line.
    pub(crate) about: &'static str,
}

/// The keys of one kind of mapping.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Table {
    /// What the mapping is.
    pub(crate) name: &'static str,
    pub(crate) keys: &'static [Key],
}

impl Table {
    /// One such mapping, with its article.
    pub(crate) fn one(&self) -> String {
        let article = if self.name.starts_with(['a', 'e']) { "an" } else { "a" };
        format!("{article} {}", self.name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().map(|key| key.name)
    }
}

const fn key(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, shape, about }
}

/// A template.
pub(crate) const TEMPLATE: Table = Table {
    name: "template",
    keys: &[
        key("import_args", Shape::Names, "names bound by position when the template is imported"),
        key(
            "import_kwargs",
            Shape::ImportKeywords,
            "keywords bound when the template is imported: a name that the keyword's value has here, or a default",
        ),
        key("args", Shape::Names, "names bound by position at each call"),
        key(
            "kwargs",
            Shape::Keywords,
            "keywords bound at each call: the name that the keyword's value has here",
        ),
        key("type", Shape::TaskKind, "what a task runs: function, process or job, in any case"),
        key(
            "executables",
            Shape::Tables(&EXECUTABLE),
            "what to run: one function or program, or of a job one or several programs under one launch",
        ),
        key("reads", Shape::Tables(&ACCESS), "what a task reads; it runs after the tasks that write it"),
        key(
            "writes",
            Shape::Tables(&ACCESS),
            "what a task writes; it runs after the tasks that read or write it",
        ),
        key("name", Shape::Value, "the task's name in errors, graphs and reports"),
        key("timeout", Shape::Table(&TIMEOUT), "how long one attempt may take; none without"),
        key("stdout", Shape::Value, "the file that gets what a process or job writes to its standard output"),
        key("stderr", Shape::Value, "the file that gets what a process or job writes to its standard error"),
        key("cpus", Shape::Count, "cpus that it holds while it runs, of a job each rank"),
        key("gpus", Shape::Number, "GPUs that it holds while it runs: whole ones, or a part of one"),
        key("memory", Shape::Bytes, "memory that it may use: bytes, or text with a unit as 4GiB"),
        key("label", Shape::Value, "a named resource that its worker must have"),
        key("retries", Shape::Count, "how often it is tried again when it fails; 0 without"),
        key("ranks_per_node", Shape::Count, "ranks of a job on each node"),
        key("accept_exit", Shape::Codes, "exit codes that count as success, beside 0"),
    ],
};

/// One executable of a template.
pub(crate) const EXECUTABLE: Table = Table {
    name: "executable",
    keys: &[
        key("target", Shape::Value, "the name of a function, or a program: a path, or a name on PATH"),
        key("args", Shape::Values, "its arguments; a list among them gives all its elements to a program"),
        key(
            "kwargs",
            Shape::ValuesByName,
            "its arguments by name: of a function those of its parameters, of a program `--name value`",
        ),
        key("nprocs", Shape::Count, "ranks of a job; 1 without"),
        key("cwd", Shape::Value, "the folder in which a program runs"),
        key("env", Shape::Environment, "variables of a program's environment, beside those that are there"),
        key("stdout", Shape::Value, "as the template's `stdout`"),
        key("stderr", Shape::Value, "as the template's `stderr`"),
    ],
};

/// One entry of `reads` or `writes`.
pub(crate) const ACCESS: Table = Table {
    name: "access",
    keys: &[
        key("files", Shape::Values, "paths of files or directories; a directory stands for all below it"),
        key("ddict", Shape::Value, "a dictionary, whose `keys` are meant"),
        key("keys", Shape::Values, "keys of the dictionary"),
    ],
};

/// The parts of a timeout, which add up.
pub(crate) const TIMEOUT: Table = Table {
    name: "timeout",
    keys: &[
        key("day", Shape::Number, "days"),
        key("hour", Shape::Number, "hours"),
        key("min", Shape::Number, "minutes"),
        key("sec", Shape::Number, "seconds"),
    ],
};

/// A workflow file.
pub(crate) const WORKFLOW: Table = Table {
    name: "workflow",
    keys: &[
        key("steps", Shape::Steps, "steps, whose order follows from what they read and write"),
        key("sequence", Shape::Steps, "steps of which each begins when the one before has ended"),
        key("parallel", Shape::Steps, "steps whose order follows from what they read and write"),
        key("mapreduce", Shape::Table(&MAPREDUCE), "steps, and what to do when all their tasks have ended"),
    ],
};

/// A step of a workflow: a template with the values of its names, or a block of steps.
pub(crate) const STEP: Table = Table {
    name: "step",
    keys: &[
        key("ptd", Shape::TemplateOrPath, "a template: the path of its file, or the template itself"),
        key("set", Shape::ValuesByName, "values of names of the template"),
        key(
            "for",
            Shape::Ranges,
            "names with what they range over: `a..b` (the end left out), a list, `glob:*.dat`, `@file` by lines",
        ),
        key("zip", Shape::Bool, "names range together, not each with each"),
        key("sequence", Shape::Steps, "a block of steps of which each begins when the one before has ended"),
        key("parallel", Shape::Steps, "a block of steps whose order follows from what they read and write"),
        key("mapreduce", Shape::Table(&MAPREDUCE), "a block of steps, and what to do when all have ended"),
    ],
};

/// A block of steps with a reduction.
pub(crate) const MAPREDUCE: Table = Table {
    name: "mapreduce",
    keys: &[
        key("map", Shape::StepOrSteps, "steps whose order follows from what they read and write"),
        key("reduce", Shape::StepOrSteps, "what begins when all tasks of `map` have ended"),
    ],
};
