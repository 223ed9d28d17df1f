"""What is kept of a foreign program's output: the last lines, and PETSc's own reason."""

from solvers.program.leashed import Output

CRASH = b"""[0]PETSC ERROR: --------------------- Error Message --------------------------------
[0]PETSC ERROR: Unknown type
[0]PETSC ERROR: Unknown TS type: foo
[0]PETSC ERROR: WARNING! There are unused option(s) set! Could be the program crashed before usage
[0]PETSC ERROR:   Option left: name:-ts_monitor value: binary:/tmp/x source: command line
[0]PETSC ERROR: See https://petsc.org/release/faq/ for trouble shooting.
[0]PETSC ERROR: #1 TSSetType() at tsreg.c:52
[0]PETSC ERROR: PETSc Option Table entries:
[0]PETSC ERROR: -nu 0.2 (source: command line)
[0]PETSC ERROR: ----------------End of Error Message -------send entire error message----
"""


def test_petscs_reason_is_found_however_the_output_is_cut() -> None:
    for piece in (1, 10, 1000):
        output = Output()
        for start in range(0, len(CRASH), piece):
            output.feed(CRASH[start : start + piece])
        assert output.reason == "Unknown type: Unknown TS type: foo"
        assert "#1 TSSetType() at tsreg.c:52" in str(output)
        assert "-nu 0.2" not in str(output)
        assert "Option left" not in str(output)


def test_the_first_reason_counts() -> None:
    output = Output()
    output.feed(
        b"  Nonlinear solve did not converge due to DIVERGED_LOCAL_MIN iterations 4\n" + CRASH
    )
    assert (
        output.reason == "Nonlinear solve did not converge due to DIVERGED_LOCAL_MIN iterations 4"
    )


def test_what_is_kept_is_bounded() -> None:
    output = Output()
    for _ in range(100):
        output.feed(b"x" * 100_000)
    for number in range(1000):
        output.feed(f"line {number}\n".encode())
    assert len(str(output)) < 10_000
    assert str(output).endswith("line 999")


def test_a_last_line_without_an_end_is_kept() -> None:
    output = Output()
    output.feed(b"all but\ndone \xff")
    assert "done" not in str(output)
    output.feed(b"")
    assert str(output) == "  all but\n  done \ufffd"
    assert output.reason is None


def test_silence_says_so() -> None:
    assert str(Output()) == "  (no output)"
