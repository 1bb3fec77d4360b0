package job

import "bytes"

// Inline returns the encoded result data with body in the place of the reference
// to the object that holds it, so that it reads as one that was never too big.
// Everything else stays byte for byte, also what this version does not know. A
// result that refers to no object is returned as it is. The result of data must
// have been decoded by [DecodeResult] without an error, and body be JSON.
func Inline(data, body []byte) []byte {
	var place member
	for m := range members(data) {
		if m.is("response") {
			place = m
		}
	}
	response := data[place.value:place.end]
	if !refers(response) {
		return data
	}
	var cut address
	for m := range members(response) {
		switch {
		case m.is("object"), m.is("bytes"):
			cut.drop(response, m)
		case m.is("body"):
			cut.upTo(response, m)
			cut.rest.Write(response[m.start:m.value])
			cut.rest.Write(body)
			cut.copied, cut.keptLen, cut.dropping = m.end, cut.rest.Len(), false
		default:
			cut.keep(response, m)
		}
	}
	return bytes.Join([][]byte{data[:place.value], cut.finish(response), data[place.end:]}, nil)
}

// refers reports whether a response has its body in an object.
func refers(response []byte) bool {
	for m := range members(response) {
		if m.is("object") && response[m.value] == '"' {
			return true
		}
	}
	return false
}
