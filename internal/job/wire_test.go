package job_test

import (
	"flag"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/job"
)

const wireDoc = "../../docs/wire.md"

var updateDocs = flag.Bool("update-docs", false, "write the golden files into docs/wire.md")

func wire(tb testing.TB) string {
	tb.Helper()
	data, err := os.ReadFile(wireDoc)
	require.NoError(tb, err)
	return string(data)
}

func TestTheExamplesOfTheDocumentAreTheGoldenFiles(t *testing.T) {
	t.Parallel()
	example := regexp.MustCompile("(?s)<!-- golden: ([^ ]+) -->\n```json\n(.*?)```\n")
	doc := wire(t)
	if *updateDocs {
		doc = example.ReplaceAllStringFunc(doc, func(old string) string {
			name := example.FindStringSubmatch(old)[1]
			return "<!-- golden: " + name + " -->\n```json\n" + string(golden(t, name)) + "```\n"
		})
		require.NoError(t, os.WriteFile(wireDoc, []byte(doc), 0o644))
	}
	shown := make(map[string]bool)
	for _, match := range example.FindAllStringSubmatch(doc, -1) {
		require.Equal(t, string(golden(t, match[1])), match[2], match[1])
		shown[match[1]] = true
	}
	require.Len(t, shown, strings.Count(doc, "```json"), "every JSON example is a golden file, shown once")
	files, err := os.ReadDir(goldenDir)
	require.NoError(t, err)
	for _, file := range files {
		require.True(t, shown[file.Name()] || strings.Contains(doc, "(../internal/job/testdata/golden/"+file.Name()+")"),
			"%s is neither shown nor linked", file.Name())
	}
}

func TestTheLinksOfTheDocumentLeadSomewhere(t *testing.T) {
	t.Parallel()
	doc := wire(t)
	anchors := make(map[string]bool)
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(doc, -1) {
		anchors["#"+strings.ReplaceAll(strings.ToLower(heading[1]), " ", "-")] = true
	}
	links := regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(doc, -1)
	require.NotEmpty(t, links)
	for _, link := range links {
		switch {
		case strings.HasPrefix(link[1], "https://"):
		case strings.HasPrefix(link[1], "#"):
			require.True(t, anchors[link[1]], link[1])
		default:
			_, err := os.Stat("../../docs/" + link[1])
			require.NoError(t, err, link[1])
		}
	}
}

// section is the part of the document under a heading of the second level.
func section(tb testing.TB, heading string) string {
	tb.Helper()
	_, rest, ok := strings.Cut(wire(tb), "\n## "+heading+"\n")
	require.True(tb, ok, heading)
	part, _, _ := strings.Cut(rest, "\n## ")
	return part
}

// rows are the cells of the tables in a section.
func rows(tb testing.TB, heading string) [][]string {
	tb.Helper()
	var rows [][]string
	for line := range strings.Lines(section(tb, heading)) {
		if cells, ok := strings.CutPrefix(strings.TrimSpace(line), "| "); ok {
			rows = append(rows, strings.Split(strings.TrimSuffix(cells, " |"), " | "))
		}
	}
	require.NotEmpty(tb, rows, heading)
	return rows
}

func TestTheTablesOfTheDocumentNameEveryField(t *testing.T) {
	t.Parallel()
	fields := func(typ reflect.Type) (names []string) {
		for field := range typ.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			names = append(names, name)
		}
		return names
	}
	envelope := slices.Collect(maps.Keys(schema(t, "job#/$defs/envelope").Properties))
	for heading, want := range map[string][]string{
		"Job":         slices.Concat(envelope, fields(reflect.TypeFor[job.Policy]())),
		"Result":      fields(reflect.TypeFor[job.Result]()),
		"Attempts":    fields(reflect.TypeFor[job.Attempt]()),
		"Dead letter": fields(reflect.TypeFor[job.DeadLetter]()),
		"Headers":     {job.HeaderReplyTo, "Nats-Msg-Id", job.HeaderTraceParent, job.HeaderRedrives, job.HeaderOriginal, job.HeaderPayload, job.HeaderJobSeq, job.HeaderAttempt},
	} {
		var have []string
		for _, row := range rows(t, heading) {
			for name := range strings.SplitSeq(row[0], ", ") {
				if name != "Field" && name != "Header" {
					have = append(have, strings.Trim(name, "`"))
				}
			}
		}
		require.ElementsMatch(t, want, have, heading)
	}
}

func TestTheTableOfEventsNamesEveryTypeAndItsData(t *testing.T) {
	t.Parallel()
	table := make(map[string]string)
	for _, row := range rows(t, "Events") {
		table[strings.Trim(row[0], "`")] = row[2]
	}
	for _, e := range events() {
		data, ok := table[string(e.Type)]
		require.True(t, ok, e.Type)
		if strings.Contains(string(e.Type), ".attempt.") {
			require.Contains(t, data, "attempt")
			continue
		}
		var fields map[string]any
		require.NoError(t, e.DataAs(&fields))
		for name := range fields {
			require.Contains(t, data, "`"+name+"`", e.Type)
		}
	}
}

func TestTheTableOfClassesIsWhatTheBackendsDo(t *testing.T) {
	t.Parallel()
	var want, have [][]string
	for _, class := range backend.Classes() {
		row := []string{"`" + string(class) + "`", "no", string(class.Effect())}
		switch {
		case slices.Contains([]backend.Class{backend.Expired, backend.InvalidJob, backend.Poison, backend.CircuitOpen}, class):
			row[1], row[2] = "-", "-" // ours: no backend fails with them
		case class.FallsBack():
			row[1] = "yes"
		}
		want = append(want, row)
	}
	for _, row := range rows(t, "Error classes")[1:] {
		have = append(have, []string{row[0], row[2], row[3]})
	}
	require.Equal(t, want, have)
}

func TestTheTableOfSubjectsNamesEverySubjectAndStream(t *testing.T) {
	t.Parallel()
	s := subjects(t)
	part := section(t, "Subjects and streams")
	for _, name := range []string{
		s.Job("<queue>", "<id>"), s.Result("<queue>", "<id>"), s.Done("<queue>", "<id>"), s.Event("<queue>", "<id>"), s.Dead("<queue>", "<id>"),
		s.Breaker("<backend>"), s.Endpoint("complete"), s.Endpoint("submit"), s.JobsStream(), s.ResultsStream(), s.EventsStream(), s.DeadStream(),
		s.PayloadsBucket(), s.AnswersBucket(),
	} {
		require.Contains(t, part, "`"+name+"`")
	}
}
