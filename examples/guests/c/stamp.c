// A guest in C: gives each record its time and a number nobody chose, in front of its value.
//
//   before   hello
//   after    1700000000000 9f86d081 hello
//
// It speaks the ABI by itself (see `guest-sdk/abi`) and uses of libc what WASI gives a guest here: what it prints becomes
// lines of the broker's log, the clock tells the time of the record in hand, and chance is seeded by the record's
// place, so that the same record is stamped alike however often it is run.
//
//   clang-19 --target=wasm32-wasi -mexec-model=reactor -Os -flto -Wl,--strip-all \
//       -Wl,--export=weir_cursor -o stamp.wasm stamp.c
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define EXPORT(name) __attribute__((export_name(#name)))

enum { KIND_PATCH = 3, STAMP_LEN = 23 };

// The record in hand: where the host looks when something goes wrong, and what time and chance belong to.
uint32_t weir_cursor;

// Input and output are kept from batch to batch and grow as they must.
struct buffer {
    uint8_t *bytes;
    size_t capacity;
};

static struct buffer input, output;

static uint8_t *reserve(struct buffer *buffer, size_t bytes) {
    if (bytes > buffer->capacity) {
        free(buffer->bytes);
        buffer->bytes = malloc(bytes);
        buffer->capacity = buffer->bytes ? bytes : 0;
    }
    return buffer->bytes;
}

static uint32_t u32_at(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

// A number of a record: zigzag, seven bits a byte. The host has checked that it ends.
static int64_t varint(const uint8_t **at) {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
        uint8_t byte = *(*at)++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) return (int64_t)(value >> 1) ^ -(int64_t)(value & 1);
    }
}

// Writes the stamp of the record in hand.
static void stamp(char *out) {
    struct timespec now;
    uint32_t chance = 0;
    clock_gettime(CLOCK_REALTIME, &now);
    getentropy(&chance, sizeof chance);
    char text[STAMP_LEN + 1];
    snprintf(text, sizeof text, "%013lld %08x ", now.tv_sec * 1000LL + now.tv_nsec / 1000000, chance);
    memcpy(out, text, STAMP_LEN);
}

EXPORT(weir_abi_version) int32_t weir_abi_version(void) { return 1; }

EXPORT(weir_alloc) uint8_t *weir_alloc(size_t bytes) { return reserve(&input, bytes); }

EXPORT(weir_process) int64_t weir_process(const uint8_t *batch, size_t bytes) {
    uint32_t count = u32_at(batch + 4);
    size_t bitmap = (count / 8 + (count % 8 != 0) + 3) / 4 * 4;
    size_t values = 8 + bitmap + (size_t)count * 8;
    // Behind the decisions the new values. Each is its stamp and the old value, and all old values lie in the input.
    uint8_t *out = reserve(&output, values + (size_t)count * STAMP_LEN + bytes);
    if (!out) {
        puts("no memory for the output");
        return -1;
    }
    uint32_t head[2] = {KIND_PATCH, count};
    memcpy(out, head, sizeof head);
    memset(out + 8, 0xff, bitmap);
    uint8_t *end = out + values;
    const uint8_t *at = batch + u32_at(batch);
    for (weir_cursor = 0; weir_cursor < count; weir_cursor++) {
        int64_t length = varint(&at);
        const uint8_t *next = at + length;
        at += 1;                                 // attributes
        varint(&at), varint(&at);                // timestamp and offset
        int64_t key = varint(&at);
        at += key > 0 ? key : 0;
        int64_t value = varint(&at);
        uint32_t entry[2] = {(uint32_t)(uintptr_t)end, STAMP_LEN + (uint32_t)(value > 0 ? value : 0)};
        stamp((char *)end);
        memcpy(end + STAMP_LEN, at, entry[1] - STAMP_LEN);
        memcpy(out + 8 + bitmap + (size_t)weir_cursor * 8, entry, sizeof entry);
        end += entry[1];
        at = next;
    }
    printf("stamped %u records\n", count);
    return (int64_t)(uintptr_t)out << 32 | (int64_t)values;
}
