//! What the compiler tells a user whose call does not fit, word for word; and a program that uses every shape that
//! fits. With a program that must run, the cases are built and not only checked, so errors of late stages show, too.

#[test]
fn the_compiler_explains_what_does_not_fit() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/messages/every_shape.rs");
    for name in [
        "too_few_arguments",
        "wrong_argument",
        "wrong_result",
        "no_serde",
        "captures",
        "strange_error",
        "serialisable_error",
        "fallible_closure",
        "no_list",
        "no_datum",
        "too_many_parameters",
    ] {
        cases.compile_fail(format!("tests/messages/{name}.rs"));
    }
}
