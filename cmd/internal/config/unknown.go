package config

import (
	"maps"
	"slices"
	"strings"
)

// checkUnknown warns of variables that look like ours and are not. NATS_* is
// left out: other programs have variables of that name.
func (r *reader) checkUnknown() {
	suffixes := routeSuffixes()
	for _, name := range slices.Sorted(maps.Keys(r.env.vars)) {
		if _, known := r.owners[name]; known || fromOrchestrator(name, r.env.vars[name]) {
			continue
		}
		switch {
		case r.ours(name):
			mend := "`worker -env` lists all"
			if near := r.nearest(name); near != "" {
				mend = "did you mean " + near + "?"
			}
			r.report.warn(name, mend, "is not a variable of this program")
		case strings.HasPrefix(name, "ROUTE_") && slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(name, s) }):
			r.report.warn(name, "add the route to ROUTES, or unset it", "belongs to a route that does not exist")
		}
	}
}

func (r *reader) ours(name string) bool {
	return slices.ContainsFunc(r.prefixes, func(prefix string) bool {
		return prefix != "NATS_" && strings.HasPrefix(name, prefix)
	})
}

// routeSuffixes are the ends of the names of a route's variables.
func routeSuffixes() []string {
	list, err := fields("", &routeSpec{})
	if err != nil {
		return nil
	}
	var suffixes []string
	for _, f := range list {
		suffixes = append(suffixes, "_"+f.name)
	}
	return suffixes
}

// fromOrchestrator reports whether Kubernetes or Docker set the variable for a
// service that happens to be called like one of our prefixes, such as
// VLLM_SERVICE_HOST, VLLM_PORT=tcp://… and VLLM_PORT_8000_TCP_ADDR.
func fromOrchestrator(name, value string) bool {
	if strings.HasSuffix(name, "_SERVICE_HOST") || strings.HasSuffix(name, "_SERVICE_PORT") || strings.Contains(name, "_SERVICE_PORT_") {
		return true
	}
	scheme, _, isURL := strings.Cut(value, "://")
	if strings.HasSuffix(name, "_PORT") && isURL && isProtocol(strings.ToUpper(scheme)) {
		return true
	}
	_, rest, found := strings.Cut(name, "_PORT_")
	number, rest, _ := strings.Cut(rest, "_")
	protocol, _, _ := strings.Cut(rest, "_")
	return found && number != "" && strings.Trim(number, "0123456789") == "" && isProtocol(protocol)
}

func isProtocol(name string) bool { return name == "TCP" || name == "UDP" || name == "SCTP" }

// nearest returns the known variable that name was most likely meant to be;
// empty when none is near.
func (r *reader) nearest(name string) string {
	const most = 3 // a wrong word is further away, a typo is not
	best, least := "", most+1
	for _, known := range slices.Sorted(maps.Keys(r.owners)) {
		if d := distance(name, known); d < least {
			best, least = known, d
		}
	}
	return best
}

// distance is how many bytes must be put in, taken out or changed, or swapped
// with their neighbour counting as two, to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
