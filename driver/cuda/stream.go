package cuda

import "unsafe"

type (
	// Stream is a queue of work on the device.
	Stream uintptr
	// Event marks a place in a stream, with a time.
	Event uintptr
	// Graph is captured work, Exec the same made ready to run.
	Graph uintptr
	Exec  uintptr
)

// NewStream makes a stream that does not wait for the default stream.
func (c *Context) NewStream() (Stream, error) {
	const nonBlocking = 1
	s := new(Stream)
	err := c.call("cuStreamCreate", c.streamCreate, uintptr(unsafe.Pointer(s)), nonBlocking)
	return *s, err
}

// DestroyStream frees a stream.
func (c *Context) DestroyStream(s Stream) error {
	return c.call("cuStreamDestroy", c.streamDestroy, uintptr(s))
}

// Wait returns when all work of the stream is done, with the error of any.
func (c *Context) Wait(s Stream) error {
	return c.call("cuStreamSynchronize", c.streamSynchronize, uintptr(s))
}

// Query reports whether all work of the stream is done.
func (c *Context) Query(s Stream) (bool, error) {
	err := c.call("cuStreamQuery", c.streamQuery, uintptr(s))
	if IsCode(err, NotReady) {
		return false, nil
	}
	return err == nil, err
}

// BeginCapture records what is enqueued from here on instead of running it.
func (c *Context) BeginCapture(s Stream) error {
	const threadLocal = 1
	return c.call("cuStreamBeginCapture", c.streamBeginCapture, uintptr(s), threadLocal)
}

// EndCapture returns what was recorded.
func (c *Context) EndCapture(s Stream) (Graph, error) {
	g := new(Graph)
	err := c.call("cuStreamEndCapture", c.streamEndCapture, uintptr(s), uintptr(unsafe.Pointer(g)))
	return *g, err
}

// Nodes is the number of operations in a graph.
func (c *Context) Nodes(g Graph) (int, error) {
	n := new(uint64)
	err := c.call("cuGraphGetNodes", c.graphGetNodes, uintptr(g), 0, uintptr(unsafe.Pointer(n)))
	return int(*n), err
}

// Instantiate makes a graph ready to run.
func (c *Context) Instantiate(g Graph) (Exec, error) {
	e := new(Exec)
	err := c.call("cuGraphInstantiate", c.graphInstantiate, uintptr(unsafe.Pointer(e)), uintptr(g), 0)
	return *e, err
}

// UploadGraph moves a graph to the device, so that its first run is not slower.
func (c *Context) UploadGraph(e Exec, s Stream) error {
	return c.call("cuGraphUpload", c.graphUpload, uintptr(e), uintptr(s))
}

// LaunchGraph enqueues a run of the graph.
func (c *Context) LaunchGraph(e Exec, s Stream) error {
	return c.call("cuGraphLaunch", c.graphLaunch, uintptr(e), uintptr(s))
}

// DestroyGraph frees a graph.
func (c *Context) DestroyGraph(g Graph) error {
	return c.call("cuGraphDestroy", c.graphDestroy, uintptr(g))
}

// DestroyExec frees a graph that was made ready.
func (c *Context) DestroyExec(e Exec) error {
	return c.call("cuGraphExecDestroy", c.graphExecDestroy, uintptr(e))
}

// NewEvent makes an event.
func (c *Context) NewEvent() (Event, error) {
	e := new(Event)
	err := c.call("cuEventCreate", c.eventCreate, uintptr(unsafe.Pointer(e)), 0)
	return *e, err
}

// DestroyEvent frees an event.
func (c *Context) DestroyEvent(e Event) error {
	return c.call("cuEventDestroy", c.eventDestroy, uintptr(e))
}

// Record puts an event into a stream.
func (c *Context) Record(e Event, s Stream) error {
	return c.call("cuEventRecord", c.eventRecord, uintptr(e), uintptr(s))
}

// WaitEvent returns when the stream has reached the event.
func (c *Context) WaitEvent(e Event) error {
	return c.call("cuEventSynchronize", c.eventSynchronize, uintptr(e))
}

// Elapsed waits for b and returns the milliseconds from a to b.
func (c *Context) Elapsed(a, b Event) (float64, error) {
	if err := c.WaitEvent(b); err != nil {
		return 0, err
	}
	ms := new(float32)
	err := c.call("cuEventElapsedTime", c.eventElapsedTime, uintptr(unsafe.Pointer(ms)), uintptr(a), uintptr(b))
	return float64(*ms), err
}
