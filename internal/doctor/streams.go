package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"understudy/internal/queue"
)

// lookAtStreams looks at our four streams.
func (e *examination) lookAtStreams(ctx context.Context) {
	if e.off {
		return
	}
	told := false
	for _, want := range e.Layout.Streams() {
		var info jetstream.StreamInfo
		asked := e.Now()
		err := e.door.api(ctx, "STREAM.INFO."+want.Name, nil, &info)
		switch {
		case isAPI(err, jetstream.JSErrCodeStreamNotFound):
			e.add(Finding{
				Level: Problem, Check: "stream.missing", Where: want.Name,
				What: "the stream does not exist", Mend: "start a worker: it makes the streams that are missing",
			})
			continue
		case err != nil:
			e.unseen("the stream", want.Name, err)
			continue
		}
		e.streams[want.Name] = &info
		before := len(e.findings)
		for _, d := range e.Layout.CheckStream(info.Config) {
			e.add(e.streamDifference(d, &info))
		}
		for _, f := range streamHealth(&info, e.Conn.ConnectedClusterName()) {
			e.add(f)
		}
		if len(e.findings) == before {
			e.fine("stream.settings", want.Name, "as it should be, with %s", several(info.State.Msgs, "message"))
		}
		if !told {
			told = true
			e.compareClock("clock.server", e.Conn.ConnectedServerName(), "the server's", info.TimeStamp, asked, e.Now())
		}
	}
}

// compareClock compares another clock with this machine's: it was read between
// asked and answered.
func (e *examination) compareClock(check, where, whose string, clock, asked, answered time.Time) {
	if clock.IsZero() {
		return
	}
	var apart time.Duration
	switch {
	case clock.Before(asked):
		apart = clock.Sub(asked)
	case clock.After(answered):
		apart = clock.Sub(answered)
	}
	if apart.Abs() <= clockSkew {
		e.fine(check, where, "%s clock agrees with this machine's", whose)
		return
	}
	way := "ahead of"
	if apart < 0 {
		way = "behind"
	}
	e.add(Finding{
		Level: Warning, Check: check, Where: where,
		What: fmt.Sprintf("%s clock is %s %s this machine's: deadlines and ages are off by that", whose, apart.Abs().Round(time.Second), way),
		Mend: "synchronise the clocks (NTP)",
	})
}

// streamDifference judges a setting of a stream that differs.
func (e *examination) streamDifference(d queue.Difference, info *jetstream.StreamInfo) Finding {
	f := Finding{
		Level: Problem, Check: "stream.settings", Where: d.Object,
		What: fmt.Sprintf("%s is %s, wants %s", d.Setting, d.Have, d.Want),
		Mend: streamMend(d, info),
	}
	s := e.Layout.Subjects
	switch {
	case d.Setting == "num_replicas":
		f.Level, f.Check = Note, "stream.environment"
		f.What = fmt.Sprintf("has num_replicas %s; WORKER_REPLICAS here says %s", d.Have, d.Want)
		f.Mend = "WORKER_REPLICAS=" + d.Have + ", or " + f.Mend
	case d.Setting == "max_age" && (d.Object == s.ResultsStream() || d.Object == s.EventsStream()):
		variable := "WORKER_RESULTS_MAX_AGE"
		if d.Object == s.EventsStream() {
			variable = "WORKER_EVENTS_MAX_AGE"
		}
		f.Level, f.Check = Note, "stream.environment"
		f.What = fmt.Sprintf("keeps messages for %s; %s here says %s", kept(d.Have), variable, d.Want)
		f.Mend = variable + "=" + d.Have + ", or " + f.Mend
	case d.Setting == "allow_direct", d.Object == s.EventsStream() && d.Setting == "max_msgs_per_subject":
		f.Level = Warning
	}
	f.What += because(d)
	return f
}

// kept is how long a stream keeps messages.
func kept(age string) string {
	if age == "0s" {
		return "ever"
	}
	return age
}

// because says what a differing setting does.
func because(d queue.Difference) string {
	var why string
	switch d.Setting {
	case "subjects":
		why = "messages go elsewhere or nowhere"
	case "retention":
		why = "finished jobs do not leave the stream"
	case "storage":
		why = "a restart of the server loses everything"
	case "allow_direct":
		why = "reading many results is slow, and submit reconcile cannot"
	case "max_msgs_per_subject":
		why = "one id is one job, and one result, only with 1; a job's story needs all its events"
	case "no_ack":
		why = "publishers do not hear whether a message was stored"
	case "discard_new_per_subject":
		why = "a job of an id that is queued replaces it"
	case "discard":
		why = "a full stream throws away instead of telling"
	case "republish.dest":
		why = "nobody who awaits a result hears of it"
	case "max_age":
		if strings.HasSuffix(d.Object, "_JOBS") || strings.HasSuffix(d.Object, "_DEAD") {
			why = "jobs vanish by themselves"
		}
	}
	if why == "" {
		return ""
	}
	return ": " + why
}

// streamMend is the command that sets what d wants. A setting that the server
// does not change needs a new stream.
func streamMend(d queue.Difference, info *jetstream.StreamInfo) string {
	edit := "nats stream edit " + d.Object + " "
	switch d.Setting {
	case "subjects":
		return edit + "--subjects='" + strings.ReplaceAll(strings.Trim(d.Want, "[]"), " ", ",") + "'"
	case "allow_direct":
		return edit + "--allow-direct"
	case "num_replicas":
		return edit + "--replicas=" + d.Want
	case "max_age":
		return edit + "--max-age=" + d.Want
	case "max_msgs_per_subject":
		return edit + "--max-msgs-per-subject=" + strings.Replace(d.Want, "0", "-1", 1)
	case "no_ack":
		return edit + "--ack"
	case "discard":
		return edit + "--discard=new"
	case "discard_new_per_subject":
		return edit + "--discard=new --discard-per-subject"
	case "republish.dest":
		source := strings.Join(info.Config.Subjects, " ")
		return edit + "--republish-source='" + source + "' --republish-destination='" + d.Want + "'"
	}
	return "it cannot be changed: stop the workers, nats stream backup " + d.Object + ", nats stream rm " + d.Object + ", start a worker"
}

// streamHealth judges what is not a setting of ours: copies and room.
func streamHealth(info *jetstream.StreamInfo, cluster string) []Finding {
	name := info.Config.Name
	var findings []Finding
	if cluster != "" && info.Config.Replicas == 1 {
		findings = append(findings, Finding{
			Level: Warning, Check: "stream.replicas", Where: name,
			What: "has one copy in cluster " + cluster + ": it stops with the server that has it",
			Mend: "nats stream edit " + name + " --replicas=3, and WORKER_REPLICAS=3",
		})
	}
	if cluster != "" {
		findings = append(findings, clusterHealth("stream", name, info.Cluster)...)
	}
	for _, l := range []struct {
		name string
		used uint64
		max  int64
	}{{"max_msgs", info.State.Msgs, info.Config.MaxMsgs}, {"max_bytes", info.State.Bytes, info.Config.MaxBytes}} {
		if l.max <= 0 || float64(l.used) < full*float64(l.max) {
			continue
		}
		f := Finding{
			Level: Warning, Check: "stream.full", Where: name,
			What: fmt.Sprintf("%d of %s %d are used", l.used, l.name, l.max),
			Mend: fmt.Sprintf("nats stream edit %s --%s=…, or take out what is old", name, strings.ReplaceAll(l.name, "_", "-")),
		}
		if info.Config.Discard == jetstream.DiscardNew && l.used >= uint64(l.max) {
			f.Level, f.What = Problem, f.What+": the next message is refused"
		}
		findings = append(findings, f)
	}
	return findings
}

// lagging is how many operations a copy may be behind.
const lagging = 1000

// clusterHealth judges the copies of a stream or consumer.
func clusterHealth(kind, name string, c *jetstream.ClusterInfo) []Finding {
	if c == nil || c.Leader == "" {
		return []Finding{{
			Level: Problem, Check: kind + ".leader", Where: name,
			What: "has no leader: nothing can be stored or taken", Mend: "see that most of its servers run: nats server report jetstream",
		}}
	}
	var findings []Finding
	for _, r := range slices.SortedFunc(slices.Values(c.Replicas), func(a, b *jetstream.PeerInfo) int { return strings.Compare(a.Name, b.Name) }) {
		var what string
		switch {
		case r.Offline:
			what = "the copy on " + r.Name + " is offline"
		case r.Lag > lagging:
			what = fmt.Sprintf("the copy on %s is %d operations behind", r.Name, r.Lag)
		case !r.Current:
			what = "the copy on " + r.Name + " is not up to date"
		default:
			continue
		}
		findings = append(findings, Finding{
			Level: Warning, Check: kind + ".replica", Where: name, What: what, Mend: "see to that server: nats server report jetstream",
		})
	}
	return findings
}
