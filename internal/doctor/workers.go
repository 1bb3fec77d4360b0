package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/micro"

	"understudy/internal/worker"
)

// maxFleet is how many workers are listened to: anybody may answer.
const maxFleet = 10000

// member is one worker that answered.
type member struct {
	id, name, version, prefix string
	// queues is empty for a worker that does not say.
	queues []string
	// slots is how many jobs it runs at once; 0 when it does not say.
	slots   int
	started time.Time
	// status is nil for a worker that does not say.
	status *worker.Status
	// asked and answered are when its status was read.
	asked, answered time.Time
}

// callRoll asks every worker who and how it is.
func (d *door) callRoll(ctx context.Context, now func() time.Time) ([]member, error) {
	var fleet []member
	err := d.gather(ctx, "$SRV.INFO."+worker.ServiceName, func(data []byte, _ time.Duration) bool {
		var info micro.Info
		if json.Unmarshal(data, &info) == nil {
			fleet = append(fleet, introduced(info))
		}
		return len(fleet) >= maxFleet // how many there are nobody knows
	})
	if err != nil || len(fleet) == 0 {
		return fleet, err
	}
	asked, left := now(), len(fleet)
	err = d.gather(ctx, "$SRV.STATS."+worker.ServiceName, func(data []byte, passed time.Duration) bool {
		var stats micro.Stats
		if json.Unmarshal(data, &stats) != nil {
			return false
		}
		i := slices.IndexFunc(fleet, func(m member) bool { return m.id == stats.ID })
		if i < 0 || !fleet[i].answered.IsZero() {
			return false
		}
		fleet[i].asked, fleet[i].answered = asked, asked.Add(passed)
		fleet[i].report(stats)
		left--
		return left == 0
	})
	slices.SortFunc(fleet, func(a, b member) int { return strings.Compare(a.name+" "+a.id, b.name+" "+b.id) })
	return fleet, err
}

// introduced is what a worker says it is.
func introduced(info micro.Info) member {
	m := member{id: info.ID, name: info.Metadata[worker.MetaWorker], version: info.Version, prefix: info.Metadata[worker.MetaPrefix]}
	if text := info.Metadata[worker.MetaQueues]; text != "" {
		m.queues = strings.Split(text, ",")
	}
	m.slots, _ = strconv.Atoi(info.Metadata[worker.MetaConcurrency]) // absent: 0
	return m
}

// report takes over how a worker says it is.
func (m *member) report(stats micro.Stats) {
	m.started = stats.Started
	for _, ep := range stats.Endpoints {
		var s worker.Status
		if json.Unmarshal(ep.Data, &s) == nil && !s.Time.IsZero() {
			m.status = &s
			return
		}
	}
}

// lookAtWorkers looks at the fleet.
func (e *examination) lookAtWorkers(ctx context.Context) {
	all, err := e.door.callRoll(ctx, e.Now)
	prefix := e.Layout.Subjects.Prefix()
	for _, m := range all {
		if m.prefix == prefix {
			e.fleet = append(e.fleet, m)
		}
	}
	if err != nil {
		e.unseen("the workers", "workers", err)
	}
	e.heard = err == nil || len(all) > 0
	if others := len(all) - len(e.fleet); others > 0 {
		e.add(Finding{
			Level: Note, Check: "worker.prefix", Where: "workers",
			What: fmt.Sprintf("%s of another installation in this account: WORKER_SUBJECT_PREFIX is not %s there", several(others, "worker"), prefix),
		})
	}
	if len(e.fleet) == 0 {
		e.nobody()
		return
	}
	e.compareFleet()
	for _, m := range e.fleet {
		e.lookAtWorker(m)
	}
}

// nobody notes that no worker answers.
func (e *examination) nobody() {
	if !e.heard {
		return
	}
	f := Finding{
		Level: Warning, Check: "worker.none", Where: "workers",
		What: "no worker answers", Mend: "start a worker, with the same NATS_URL and WORKER_SUBJECT_PREFIX",
	}
	if n := e.waiting(); n > 0 {
		f.Level, f.What = Problem, fmt.Sprintf("no worker answers, and %s in the queues", several(n, "job"))
	}
	e.add(f)
}

// compareFleet looks at what workers should have and not have in common.
func (e *examination) compareFleet() {
	versions, names := make(map[string]int), make(map[string]int)
	for _, m := range e.fleet {
		versions[m.version]++
		names[m.name]++
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if names[name] > 1 {
			e.add(Finding{
				Level: Warning, Check: "worker.name", Where: "worker " + name,
				What: fmt.Sprintf("%d workers have this name: what they did to a job cannot be told apart", names[name]),
				Mend: "WORKER_NAME: another one for each worker, or none",
			})
		}
	}
	if len(versions) > 1 {
		e.add(Finding{
			Level: Warning, Check: "worker.version", Where: "workers",
			What: "run different versions: " + strings.Join(slices.Sorted(maps.Keys(versions)), ", "),
			Mend: "finish the upgrade",
		})
	} else {
		e.fine("worker.version", "workers", "%s, version %s", several(len(e.fleet), "worker"), e.fleet[0].version)
	}
}

// lookAtWorker looks at what one worker says of itself.
func (e *examination) lookAtWorker(m member) {
	where := "worker " + m.name
	if m.status == nil {
		e.add(Finding{
			Level: Note, Check: "worker.silent", Where: where,
			What: "does not tell its clock and its dropped events: it is of an older version, or did not answer in time",
		})
		return
	}
	if n := m.status.DroppedEvents; n > 0 {
		e.add(Finding{
			Level: Warning, Check: "worker.events", Where: where,
			What: fmt.Sprintf("has dropped %s since its start: what happened to some jobs is not recorded", several(n, "event")),
			Mend: "see that the stream " + e.Layout.Subjects.EventsStream() + " has room and a leader",
		})
	} else {
		e.fine("worker.events", where, "has dropped no event")
	}
	e.compareClock("worker.clock", where, "its", m.status.Time, m.asked, m.answered)
}

// serving is how many workers serve a queue, and how many slots they have. known
// is false when some worker does not say which queues it serves.
func (e *examination) serving(queue string) (workers, slots int, known bool) {
	known = e.heard
	for _, m := range e.fleet {
		if len(m.queues) == 0 {
			known = false
		}
		if slices.Contains(m.queues, queue) {
			workers++
			slots += m.slots
		}
	}
	return workers, slots, known
}
