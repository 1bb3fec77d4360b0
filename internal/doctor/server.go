package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"understudy/internal/worker"
)

// The limits of what is fine.
const (
	// full is the part of a limit from which on it is near: 80 %.
	full = 0.8
	// smallPayload is the server's own default for the largest message, in bytes;
	// long prompts and answers do not fit much less.
	smallPayload = 1 << 20
	// clockSkew is how far two clocks may be apart.
	clockSkew = 2 * time.Second
)

// lookAtServer looks at what the connection itself tells.
func (e *examination) lookAtServer(ctx context.Context) {
	nc := e.Conn
	e.add(versionFinding(nc.ConnectedServerName(), nc.ConnectedServerVersion()))
	if size := nc.MaxPayload(); size < smallPayload {
		e.add(Finding{
			Level: Warning, Check: "server.payload", Where: nc.ConnectedServerName(),
			What: fmt.Sprintf("a message takes %d bytes at most: longer jobs are refused, longer answers fail as too_large", size),
			Mend: "max_payload: 1MB in the server's configuration",
		})
	} else {
		e.fine("server.payload", nc.ConnectedServerName(), "a message takes %d bytes at most", size)
	}
	if want := e.Layout.Replicas; want > 1 && nc.ConnectedClusterName() == "" {
		e.add(Finding{
			Level: Problem, Check: "server.cluster", Where: nc.ConnectedServerName(),
			What: fmt.Sprintf("WORKER_REPLICAS is %d, and this server is in no cluster: streams with copies cannot be made", want),
			Mend: "WORKER_REPLICAS=1, or run the server in a cluster",
		})
	}
	e.lookAtSync(ctx)
}

// versionFinding judges the server's version.
func versionFinding(server, version string) Finding {
	f := Finding{Level: OK, Check: "server.version", Where: server, What: "nats-server " + version}
	major, minor := release(version)
	switch {
	case major == 0:
		f.Level, f.What = Note, fmt.Sprintf("the server's version %q is not known", version)
	case major < 2 || major == 2 && minor < 9:
		f.Level, f.What = Problem, f.What+" lacks limits per subject and direct gets, which the streams need (2.9)"
	case major == 2 && minor < 11:
		f.Level, f.What = Warning, f.What+" has no batched reads, which submit reconcile needs (2.11)"
	default:
		return f
	}
	f.Mend = "upgrade nats-server to 2.11 or later"
	return f
}

// release reads "2.11.4"; zeros where it is something else.
func release(version string) (major, minor int) {
	a, rest, _ := strings.Cut(version, ".")
	b, _, _ := strings.Cut(rest, ".")
	major, err := strconv.Atoi(a)
	if err != nil {
		return 0, 0
	}
	if minor, err = strconv.Atoi(b); err != nil {
		return 0, 0
	}
	return major, minor
}

// lookAtSync finds out whether the server syncs every write to disk, where
// anything says so.
func (e *examination) lookAtSync(ctx context.Context) {
	server := e.Conn.ConnectedServerName()
	if server == worker.EmbeddedServer {
		e.fine("server.sync", server, "the embedded server syncs every write to disk")
		return
	}
	var varz struct {
		Data struct {
			JetStream struct {
				Config *struct {
					SyncAlways bool `json:"sync_always"`
				} `json:"config"`
			} `json:"jetstream"`
		} `json:"data"`
	}
	answer, err := e.door.request(ctx, nats.NewMsg("$SYS.REQ.SERVER."+e.Conn.ConnectedServerId()+".VARZ"))
	if err == nil {
		err = json.Unmarshal(answer.Data, &varz)
	}
	config := varz.Data.JetStream.Config
	switch {
	case err != nil || config == nil: // the system account alone may ask
		e.add(Finding{
			Level: Note, Check: "server.sync", Where: server,
			What: "whether the server syncs every write to disk cannot be seen from here",
			Mend: "look for sync_always in the server's /varz, or ask with the system account: nats server request variables; sync_interval: always sets it",
		})
	case config.SyncAlways:
		e.fine("server.sync", server, "the server syncs every write to disk")
	default:
		e.add(Finding{
			Level: Warning, Check: "server.sync", Where: server,
			What: "the server does not sync every write to disk: a power loss can lose jobs that were accepted",
			Mend: "jetstream { sync_interval: always } in the server's configuration, or WORKER_REPLICAS=3 on three servers",
		})
	}
}

// lookAtAccount asks for the account's JetStream limits.
func (e *examination) lookAtAccount(ctx context.Context) {
	var info jetstream.AccountInfo
	err := e.door.api(ctx, "INFO", nil, &info)
	// The server's codes for no JetStream at all and none for this account.
	if errors.Is(err, nats.ErrNoResponders) || isAPI(err, jetstream.JSErrCodeJetStreamNotEnabled) || isAPI(err, jetstream.JSErrCodeJetStreamNotEnabledForAccount) {
		e.off = true
		e.add(Finding{
			Level: Problem, Check: "server.jetstream", Where: e.Conn.ConnectedServerName(),
			What: "JetStream is not enabled for this account: no job can be stored",
			Mend: "start the server with -js, and enable JetStream for the account",
		})
		return
	}
	if err != nil {
		e.unseen("the account's limits", "account", err)
		return
	}
	e.fine("server.jetstream", e.Conn.ConnectedServerName(), "JetStream is enabled")
	for _, f := range accountFindings(&info) {
		e.add(f)
	}
}

// accountFindings judges the account's limits. A limit of -1 or 0 is none.
func accountFindings(info *jetstream.AccountInfo) []Finding {
	var findings []Finding
	judge := func(where string, t jetstream.Tier) {
		for _, l := range []struct {
			name, setting string
			used          uint64
			limit         int64
		}{
			{"storage", "max_file", t.Store, t.Limits.MaxStore},
			{"memory", "max_memory", t.Memory, t.Limits.MaxMemory},
			{"streams", "max_streams", uint64(max(t.Streams, 0)), int64(t.Limits.MaxStreams)},
			{"consumers", "max_consumers", uint64(max(t.Consumers, 0)), int64(t.Limits.MaxConsumers)},
		} {
			if l.limit <= 0 {
				continue
			}
			f := Finding{
				Level: OK, Check: "account." + l.name, Where: where,
				What: fmt.Sprintf("%s: %d of %d used", l.name, l.used, l.limit),
			}
			if part := float64(l.used) / float64(l.limit); part >= full {
				f.Level, f.Mend = Warning, "raise "+l.setting+" of the account's JetStream limits, or free some"
				if part >= 1 {
					f.Level = Problem
				}
			}
			findings = append(findings, f)
		}
	}
	judge("account", info.Tier)
	for name, tier := range info.Tiers {
		judge("account "+name, tier)
	}
	return findings
}
