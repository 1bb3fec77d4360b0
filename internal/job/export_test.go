package job

// EncodeByReflection is how a message of any type is written. What the append
// functions write of theirs must be the same.
func EncodeByReflection(v any) []byte { return encode(v) }
