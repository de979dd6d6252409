package sluice

import "unsafe"

// What the gateway holds a pointer to has to be reachable from here, or it would be collected.
var (
	questions [][]byte
	answer    []byte
)

//go:wasmimport sluice log
func gatewayLog(level int32, line unsafe.Pointer, size int32)

func write(level int32, line string) {
	gatewayLog(level, unsafe.Pointer(unsafe.StringData(line)), int32(len(line)))
}

//go:wasmexport sluice_alloc
func alloc(size int32) unsafe.Pointer {
	question := make([]byte, max(size, 1))
	questions = append(questions, question)
	return unsafe.Pointer(&question[0])
}

//go:wasmexport sluice_process
func process(document unsafe.Pointer, size int32) int64 {
	// Values are parts of the document, without a copy: nothing writes to it from here on.
	answer = Answer(configure, unsafe.String((*byte)(document), size))
	questions = nil
	return int64(uintptr(unsafe.Pointer(&answer[0])))<<32 | int64(len(answer))
}
