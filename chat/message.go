package chat

import "fmt"

// Message is one turn. A template sees it as an object with the keys role, content, and those of the other fields that
// are set, in this order; or as Raw.
type Message struct {
	Role    string
	Content string
	// NoContent makes content null, as in an assistant's turn that only calls tools.
	NoContent  bool
	Name       string
	ToolCalls  Value    // array, or null for none
	ToolCallID string   // of a tool's answer
	Extra      []Member // further keys, such as reasoning_content
	// Raw, if it is an object, is what the template sees instead of all the above: a message exactly as a client sent it.
	Raw Value
}

// FromJSON makes a message that keeps v, an object with at least a role, as it is. Content that is an array of parts
// stays one in Raw; Content then is the parts' text.
func FromJSON(v Value) (Message, error) {
	if v.Kind() != Object {
		return Message{}, fmt.Errorf("%w: a message must be an object", ErrJSON)
	}
	role, ok := v.Get("role")
	if !ok || role.Kind() != String {
		return Message{}, fmt.Errorf("%w: a message needs a role, which must be a string", ErrJSON)
	}
	m := Message{Role: role.Text(), Raw: v}
	content, _ := v.Get("content")
	switch content.Kind() {
	case String:
		m.Content = content.Text()
	case Array:
		for i := range content.Len() {
			if text, ok := content.Item(i).Get("text"); ok {
				m.Content += text.Text()
			}
		}
	case Null:
		m.NoContent = true
	default:
		return Message{}, fmt.Errorf("%w: a message's content must be a string, an array of parts or null", ErrJSON)
	}
	for i := range v.Len() {
		x := v.Item(i)
		switch v.Key(i) {
		case "role", "content":
		case "name":
			m.Name = x.Text()
		case "tool_calls":
			m.ToolCalls = x
		case "tool_call_id":
			m.ToolCallID = x.Text()
		default:
			m.Extra = append(m.Extra, Member{v.Key(i), x})
		}
	}
	return m, nil
}

// value is the object a template sees.
func (m Message) value() Value {
	if m.Raw.Kind() == Object {
		return m.Raw
	}
	v := NewObject(Member{"role", NewString(m.Role)})
	if m.NoContent {
		v.put("content", Value{})
	} else {
		v.put("content", NewString(m.Content))
	}
	if m.Name != "" {
		v.put("name", NewString(m.Name))
	}
	if !m.ToolCalls.IsNull() {
		v.put("tool_calls", m.ToolCalls)
	}
	if m.ToolCallID != "" {
		v.put("tool_call_id", NewString(m.ToolCallID))
	}
	for _, x := range m.Extra {
		v.put(x.Key, x.Value)
	}
	return v
}
