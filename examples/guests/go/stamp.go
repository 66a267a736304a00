// A guest in Go: gives each record a time and a number nobody chose, in front of its value, as `../c/stamp.c` does.
//
// It speaks the ABI by itself (see `guest-sdk/abi`). What it prints becomes lines of the broker's log. Go exports no
// globals, so the host cannot see which record it has in hand: its clock tells the time of the batch's first record, and
// chance belongs to that one, too. `weir plugin test --check-determinism` says so; where it matters, take the time from
// the record. There is no waiting: a guest that sleeps fails.
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -ldflags="-s -w" -o stamp.wasm .
package main

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"time"
	"unsafe"
)

const (
	kindPatch = 3
	stampLen  = 23
)

// Kept from batch to batch: what the host writes to and reads from must not be collected.
var input, output []byte

//go:wasmexport weir_abi_version
func abiVersion() int32 { return 1 }

//go:wasmexport weir_alloc
func alloc(length int32) int32 {
	if int(length) > cap(input) {
		input = make([]byte, length)
	}
	input = input[:length]
	return address(input)
}

//go:wasmexport weir_process
func process(_, length int32) int64 {
	batch := input[:length]
	count := binary.LittleEndian.Uint32(batch[4:])
	bitmap := (int(count) + 31) / 32 * 4
	values := 8 + bitmap + int(count)*8
	// Behind the decisions the new values. Each is its stamp and the old value, and all old values lie in the input.
	most := values + int(count)*stampLen + len(batch)
	if most > cap(output) {
		output = make([]byte, most)
	}
	output = output[:values]
	binary.LittleEndian.PutUint32(output, kindPatch)
	binary.LittleEndian.PutUint32(output[4:], count)
	for at := 8; at < 8+bitmap; at++ {
		output[at] = 0xff
	}
	start := uint32(address(output))
	records := batch[binary.LittleEndian.Uint32(batch):]
	for index := range int(count) {
		var record []byte
		record, records = next(records)
		value := valueOf(record)
		entry := output[8+bitmap+index*8:]
		binary.LittleEndian.PutUint32(entry, start+uint32(len(output)))
		binary.LittleEndian.PutUint32(entry[4:], uint32(stampLen+len(value)))
		output = append(append(output, stamp()...), value...)
	}
	fmt.Printf("stamped %d records\n", count)
	return int64(start)<<32 | int64(values)
}

// next splits off the first record's body.
func next(records []byte) (body, rest []byte) {
	length, n := binary.Varint(records)
	return records[n : n+int(length)], records[n+int(length):]
}

// valueOf finds the value in a record's body; a value that is null is taken as empty.
func valueOf(body []byte) []byte {
	body = body[1:] // attributes
	for range 2 {   // timestamp and offset
		_, n := binary.Varint(body)
		body = body[n:]
	}
	key, n := binary.Varint(body)
	body = body[n+int(max(key, 0)):]
	value, n := binary.Varint(body)
	return body[n : n+int(max(value, 0))]
}

// stamp is what comes in front of a value.
func stamp() string {
	var chance [4]byte
	rand.Read(chance[:])
	return fmt.Sprintf("%013d %x ", time.Now().UnixMilli(), chance)
}

func address(bytes []byte) int32 { return int32(uintptr(unsafe.Pointer(unsafe.SliceData(bytes)))) }

func main() {}
