from ssl_swin.weights.formats.report import Entry, LoadReport

REPORT = LoadReport(
    matched=(Entry("a", "a", ""),),
    renamed=(Entry("b", "c", "another name"), Entry("d", "e", "another name")),
    dropped=(Entry("f", "", "of no use"),),
    notes=("careful",),
)


def test_report__counts_and_describes():
    assert REPORT.summary() == "1 matched, 2 renamed, 0 resized, 1 dropped, 0 missing"
    assert list(REPORT.lines()) == [
        "renamed: b and 1 more: another name",
        "dropped: f: of no use",
        "note: careful",
    ]


def test_report__adds_up():
    total = REPORT + LoadReport(missing=(Entry("g", "", "why"),), notes=("more",))
    assert total.summary() == "1 matched, 2 renamed, 0 resized, 1 dropped, 1 missing"
    assert total.notes == ("careful", "more")
