package openai

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"understudy/internal/backend"
	"understudy/internal/job"
)

// maxSchemas is how many compiled schemas are kept.
const maxSchemas = 32

// SchemaChecker judges answers by the schema that their request asks for. It is
// made by [NewSchemaChecker] and safe for concurrent use; answers to the same
// schema are checked one after the other.
type SchemaChecker struct {
	mu sync.Mutex
	// schemas are compiled schemas by their text, recent their texts, the one
	// used last at the end.
	schemas map[string]*schema
	recent  []string
}

// NewSchemaChecker returns a checker that knows no schema yet.
func NewSchemaChecker() *SchemaChecker {
	return &SchemaChecker{schemas: make(map[string]*schema)}
}

// Check returns nil unless the answer of a chat is not what the request's
// response_format asks for: the content of every choice is JSON of the schema
// for "json_schema", a JSON object for "json_object". A choice that refuses or
// calls tools is accepted without content.
//
// The error is of class [backend.BadResponse] and holds what is known of the
// answer; its message names the first place that is wrong and may quote the
// answer. It does not name the backend, which Check is not told.
//
// A schema is read as of draft 2020-12 unless it says otherwise; formats are not
// checked. A schema that does not compile, that refers to anything outside of it
// or dynamically, and one that would take too much work accepts every answer.
func (s *SchemaChecker) Check(req *backend.Request, resp *backend.Response) *backend.Error {
	if req.URL != "" && req.URL != job.URLChat {
		return nil
	}
	format, text := wanted(req.Body)
	if format == "" {
		return nil
	}
	var top map[string]json.RawMessage
	var choices []map[string]json.RawMessage
	_ = json.Unmarshal(resp.Body, &top)
	_ = json.Unmarshal(orNull(top["choices"]), &choices)
	for i, choice := range choices {
		var message map[string]json.RawMessage
		_ = json.Unmarshal(orNull(choice["message"]), &message)
		wrong := s.judge(format, text, message)
		if wrong == "" {
			continue
		}
		if len(choices) > 1 {
			wrong = fmt.Sprintf("choice %d: %s", i, wrong)
		}
		return unacceptable(resp, wrong)
	}
	return nil
}

// unacceptable is the error of an answer that was complete.
func unacceptable(resp *backend.Response, message string) *backend.Error {
	return &backend.Error{
		Class:      backend.BadResponse,
		Status:     resp.Status,
		Message:    clip(strings.ToValidUTF8(message, "?"), maxMessage),
		RequestID:  resp.RequestID,
		Body:       []byte(clip(string(resp.Body[:min(len(resp.Body), maxErrorBody+1)]), maxErrorBody)),
		Model:      resp.Model,
		Usage:      resp.Usage,
		CostUSD:    resp.CostUSD,
		FirstToken: resp.FirstToken,
		Left:       resp.Left,
	}
}

// The formats of an answer that are checked.
const (
	formatSchema = "json_schema"
	formatObject = "json_object"
)

// wanted reads what a request asks for: a format that is checked, or "", and
// the text of the schema.
func wanted(body []byte) (format string, text json.RawMessage) {
	// Most requests ask for none, and the prompt may be long: it is not taken apart.
	var someMembers [24]member
	members, err := topLevel(someMembers[:0], body)
	if err != nil {
		return "", nil
	}
	var wanted json.RawMessage
	for _, m := range members {
		if string(m.key) == "response_format" {
			wanted = body[m.value:m.finish] // the last one counts
		}
	}
	var response, named map[string]json.RawMessage
	_ = json.Unmarshal(orNull(wanted), &response)
	switch str(response["type"]) {
	case formatObject:
		return formatObject, nil
	case formatSchema:
		_ = json.Unmarshal(orNull(response[formatSchema]), &named)
		if text = named["schema"]; !isNull(text) {
			return formatSchema, text
		}
	}
	return "", nil
}

// judge returns what is wrong with the message of a choice, or "".
func (s *SchemaChecker) judge(format string, text json.RawMessage, message map[string]json.RawMessage) string {
	content, has := contentOf(message["content"])
	if !has || strings.TrimSpace(content) == "" {
		delete(message, "content")
		if parts := partsOf(message); parts.hasOutput() {
			return ""
		}
	}
	var wrong string
	switch {
	case strings.TrimSpace(str(message["refusal"])) != "":
		return ""
	case !has:
		wrong = "it has no content"
	case !json.Valid([]byte(content)):
		wrong = "it is not JSON"
	case format == formatSchema:
		wrong = s.schema(text).check(content)
	case strings.TrimSpace(content)[0] != '{':
		wrong = "it is not an object"
	}
	if wrong == "" {
		return ""
	}
	if format == formatObject {
		return "the answer is not the requested JSON object: " + wrong
	}
	return "the answer is not of the requested schema: " + wrong
}

// contentOf returns the text of a content: a string, or a list of parts.
func contentOf(raw json.RawMessage) (string, bool) {
	var parts []map[string]json.RawMessage
	if json.Unmarshal(orNull(raw), &parts) != nil || parts == nil {
		return str(raw), !isNull(raw)
	}
	var text strings.Builder
	for _, part := range parts {
		text.WriteString(str(part["text"]))
	}
	return text.String(), true
}

// schema returns the compiled schema of a text. Compiling is done outside of the
// lock, so two answers may compile the same one; either will do.
func (s *SchemaChecker) schema(text json.RawMessage) *schema {
	key := string(text)
	s.mu.Lock()
	known := s.schemas[key]
	s.mu.Unlock()
	if known == nil {
		known = newSchema(text)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.recent, key); i >= 0 {
		s.recent = slices.Delete(s.recent, i, i+1)
	} else if len(s.recent) == maxSchemas {
		delete(s.schemas, s.recent[0])
		s.recent = slices.Delete(s.recent, 0, 1)
	}
	s.schemas[key] = known
	s.recent = append(s.recent, key)
	return known
}
