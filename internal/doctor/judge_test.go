package doctor

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

func TestVersionsAreJudged(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]Level{
		"2.8.4": Problem, "1.4.1": Problem, "2.9.0": Warning, "2.10.29": Warning, "2.11.0": OK, "2.15.2": OK, "3.0.0": OK,
		"2.12.0-RC.1": OK, "": Note, "dev": Note, "2": Note,
	} {
		f := versionFinding("n1", version)
		require.Equal(t, want, f.Level, version)
		require.Equal(t, want == OK, f.Mend == "", version)
	}
}

func TestAccountLimitsNearFullAreTold(t *testing.T) {
	t.Parallel()
	info := &jetstream.AccountInfo{
		Tier: jetstream.Tier{
			Store: 80, Memory: 79, Streams: 5, Consumers: 7,
			Limits: jetstream.AccountLimits{MaxStore: 100, MaxMemory: 100, MaxStreams: 5, MaxConsumers: -1},
		},
		Tiers: map[string]jetstream.Tier{"R3": {Store: 99, Limits: jetstream.AccountLimits{MaxStore: 100}}},
	}
	var said []string
	for _, f := range accountFindings(info) {
		said = append(said, words(f))
	}
	require.Equal(t, []string{
		"warning | account.storage | account | storage: 80 of 100 used | raise max_file of the account's JetStream limits, or free some",
		"ok | account.memory | account | memory: 79 of 100 used | ",
		"problem | account.streams | account | streams: 5 of 5 used | raise max_streams of the account's JetStream limits, or free some",
		"warning | account.storage | account R3 | storage: 99 of 100 used | raise max_file of the account's JetStream limits, or free some",
	}, said)
}

func TestCopiesAreJudged(t *testing.T) {
	t.Parallel()
	info := &jetstream.StreamInfo{
		Config: jetstream.StreamConfig{Name: "LLM_JOBS", Replicas: 3},
		Cluster: &jetstream.ClusterInfo{Leader: "s0", Replicas: []*jetstream.PeerInfo{
			{Name: "s4", Current: true, Lag: 5}, {Name: "s3"}, {Name: "s2", Current: true, Lag: 5000}, {Name: "s1", Offline: true},
		}},
	}
	var said []string
	for _, f := range streamHealth(info, "c") {
		said = append(said, fmt.Sprintf("%s %s %s", f.Level, f.Check, f.What))
	}
	require.Equal(t, []string{
		"warning stream.replica the copy on s1 is offline",
		"warning stream.replica the copy on s2 is 5000 operations behind",
		"warning stream.replica the copy on s3 is not up to date",
	}, said)
	info.Cluster.Leader, info.Config.Replicas = "", 1
	findings := streamHealth(info, "c")
	require.Equal(t, []string{"stream.replicas", "stream.leader"}, []string{findings[0].Check, findings[1].Check})
	require.Equal(t, []Level{Warning, Problem}, []Level{findings[0].Level, findings[1].Level})
	require.Empty(t, streamHealth(info, "")) // a server alone
}

func TestFiltersOverlap(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"llm.jobs.a.>", "llm.jobs.b.>", false},
		{"llm.jobs.a.>", "llm.jobs.a.>", true},
		{"llm.jobs.*.x", "llm.jobs.a.>", true},
		{"llm.jobs.*.x", "llm.jobs.a.y", false},
		{">", "llm.jobs.a", true},
		{"llm.jobs.a", "llm.jobs.a.b", false},
		{"llm.jobs.a", "llm.jobs.a.>", false},
		{"llm.*", "llm.jobs", true},
	} {
		require.Equal(t, tc.want, overlapping(tc.a, tc.b), "%s %s", tc.a, tc.b)
		require.Equal(t, tc.want, overlapping(tc.b, tc.a), "%s %s", tc.b, tc.a)
	}
}

func TestFindingsAreSortedTheWorstFirst(t *testing.T) {
	t.Parallel()
	list := []Finding{{Level: OK, What: "1"}, {Level: Problem, What: "2"}, {Level: Note, What: "3"}, {Level: Problem, What: "4"}, {Level: Warning, What: "5"}}
	require.Equal(t, Problem, Worst(list))
	Sort(list)
	var order string
	for _, f := range list {
		order += f.What
	}
	require.Equal(t, "24531", order)
	require.Equal(t, OK, Worst(nil))
}

// pages serves a sorted list as a server does, which changes after each page.
func pages(size int, list []string, change func(page int, list []string) []string) lister {
	n := 0
	return func(_ context.Context, offset int) (page, error) {
		if n > 0 && change != nil {
			list = change(n, list)
		}
		n++
		offset = min(offset, len(list))
		return page{subjects: slices.Clone(list[offset:min(offset+size, len(list))]), total: len(list)}, nil
	}
}

func numbers(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("llm.jobs.q.%06d", i)
	}
	return list
}

func collect(t *testing.T, list lister) []string {
	t.Helper()
	var all []string
	for s, err := range sorted(t.Context(), list) {
		require.NoError(t, err)
		all = append(all, s)
	}
	return all
}

func TestPagesAreReadWithoutAGap(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 4999, 5000, 5001, 20000, 23456} {
		require.Equal(t, numbers(n), append([]string{}, collect(t, pages(5000, numbers(n), nil))...), n)
	}
}

func TestWhatStaysIsReadThoughTheListShrinksAndGrows(t *testing.T) {
	t.Parallel()
	all := numbers(20000)
	for name, change := range map[string]func(page int, list []string) []string{
		"the oldest go": func(_ int, list []string) []string { return list[min(3000, len(list)):] },
		"new ones come": func(n int, list []string) []string {
			more := make([]string, 0, len(list)+700)
			for i := range 700 {
				more = append(more, fmt.Sprintf("llm.jobs.a.%d.%06d", n, i))
			}
			return slices.Sorted(slices.Values(append(more, list...)))
		},
	} {
		stay := slices.Clone(all)
		if name == "the oldest go" {
			stay = all[len(all)-2000:] // there all the time
		}
		got := collect(t, pages(5000, all, change))
		require.True(t, slices.IsSorted(got), name)
		require.Len(t, slices.Compact(slices.Clone(got)), len(got), name)
		seen := make(map[string]bool, len(got))
		for _, s := range got {
			seen[s] = true
		}
		for _, s := range stay {
			require.True(t, seen[s], "%s: %s was passed over", name, s)
		}
	}
}

func TestListsAreMergedByKey(t *testing.T) {
	t.Parallel()
	list := func(place places, prefix string, keys ...string) source {
		for i := range keys {
			keys[i] = prefix + keys[i]
		}
		return source{place, prefix, sorted(t.Context(), pages(5000, keys, nil))}
	}
	var got []located
	for l, err := range merge([]source{list(inJobs, "j.", "a", "c"), list(inResults, "r.", "b", "c"), list(inEvents, "e."), list(inDead, "d.", "c", "d")}) {
		require.NoError(t, err)
		got = append(got, l)
	}
	require.Equal(t, []located{{"a", inJobs}, {"b", inResults}, {"c", inJobs | inResults | inDead}, {"d", inDead}}, got)

	broken := sorted(t.Context(), func(context.Context, int) (page, error) { return page{}, context.Canceled })
	for _, err := range merge([]source{list(inJobs, "j.", "a"), {inDead, "d.", broken}}) {
		require.ErrorIs(t, err, context.Canceled)
	}
}
