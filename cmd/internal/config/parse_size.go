package config

import (
	"strconv"
	"strings"
)

// maxSize is the largest size a variable may hold. What is that big is held in
// memory whole.
const maxSize = 1 << 30

// parse accepts sizes as the NATS server's configuration has them: 64MB is
// 64*1024*1024 bytes.
func (byteSize) parse(text string) (int64, error) {
	const mend = "use bytes (1048576), or KB, MB or GB of 1024 each (64MB)"
	number, unit := text, int64(1)
	upper := strings.ToUpper(text)
	for _, u := range []struct {
		name  string
		bytes int64
	}{{"KIB", 1 << 10}, {"MIB", 1 << 20}, {"GIB", 1 << 30}, {"KB", 1 << 10}, {"MB", 1 << 20}, {"GB", 1 << 30}, {"B", 1}} {
		if strings.HasSuffix(upper, u.name) {
			number, unit = strings.TrimSpace(text[:len(text)-len(u.name)]), u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	switch {
	case err != nil:
		return 0, flawed(mend, "%s is not a size", quoted(text))
	case n < 0:
		return 0, flawed("use 0 or more", "%s is negative", quoted(text))
	case n > maxSize/unit:
		return 0, flawed("use 1GB at most", "%s is too big", quoted(text))
	}
	return n * unit, nil
}
