/* test_gguf.c - the reader's internal accessors: lenient numbers, strings, lookups, reads of tensor data across a split
 * set. Bad files are tests/test_gguf.py's. */
#include "base/file.h"
#include "check.h"
#include "gguf/gguf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- a file in memory ---- */

typedef struct image { unsigned char data[4096]; size_t n; } image;

static void put(image *m, const void *p, size_t n) {
    if (!n || m->n + n > sizeof m->data) return;
    memcpy(m->data + m->n, p, n);
    m->n += n;
}
static void put_u32(image *m, uint32_t v) { put(m, &v, 4); }
static void put_u64(image *m, uint64_t v) { put(m, &v, 8); }
static void put_text(image *m, const char *s) {
    put_u64(m, strlen(s));
    put(m, s, strlen(s));
}
static void put_key(image *m, const char *key, uint32_t type) {
    put_text(m, key);
    put_u32(m, type);
}
static void put_head(image *m, uint64_t tensors, uint64_t keys) {
    m->n = 0;
    put(m, "GGUF", 4);
    put_u32(m, 3);
    put_u64(m, tensors);
    put_u64(m, keys);
}
static void put_tensor(image *m, const char *name, uint64_t n0, uint64_t n1, uint32_t type, uint64_t offset) {
    put_text(m, name);
    put_u32(m, 2);
    put_u64(m, n0);
    put_u64(m, n1);
    put_u32(m, type);
    put_u64(m, offset);
}
static void write_image(image *m, const char *path) {
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(m->data, 1, m->n, f) == m->n, "cannot write %s", path);
    if (f) fclose(f);
}
static pm_gguf *open_image(image *m, const char *path) {
    pm_gguf *g = NULL;
    pymtp_error err = {0};
    write_image(m, path);
    CHECK(pm_gguf_open(path, &g, &err) == PYMTP_OK, "%s", err.text);
    return g;
}

/* ---- tests ---- */

/* Keys and the bytes of their values are the file itself, from its head to the directory. */
static void check_value_bytes(const pm_gguf *g, const image *m) {
    unsigned char got[256];
    image again;
    put_head(&again, 0, pm_gguf_n_keys(g));
    for (size_t k = 0; k < pm_gguf_n_keys(g); k++) {
        const pm_gguf_value *v = pm_gguf_value_at(g, k);
        const int64_t n = pm_gguf_value_bytes(v, got, sizeof got);
        got[0] = 0x77;
        CHECK(pm_gguf_value_bytes(v, NULL, 0) == n && pm_gguf_value_bytes(v, got + 1, (size_t)n - 1) == n && got[0] == 0x77, "%s", pm_gguf_key(g, k));
        pm_gguf_value_bytes(v, got, sizeof got);
        put_text(&again, pm_gguf_key(g, k));
        put(&again, got, (size_t)n);
    }
    CHECK(again.n == m->n && !memcmp(again.data, m->data, m->n), "values as bytes: %zu, expected %zu", again.n, m->n);
}

static void test_values(const char *path) {
    image m;
    pm_string s;
    int64_t i;
    double d;
    const float f = 2.5f;
    const int8_t bytes[] = {-1, 0, 127};
    put_head(&m, 0, 8);
    put_key(&m, "u64", PM_GGUF_U64);
    put_u64(&m, (uint64_t)INT64_MAX + 1);
    put_key(&m, "i32", PM_GGUF_I32);
    put_u32(&m, (uint32_t)-5);
    put_key(&m, "f32", PM_GGUF_F32);
    put(&m, &f, 4);
    put_key(&m, "bool", PM_GGUF_BOOL);
    put(&m, "\1", 1);
    put_key(&m, "text", PM_GGUF_STRING);
    put_u64(&m, 3);
    put(&m, "a\0b", 3);
    put_key(&m, "i8s", PM_GGUF_ARRAY);
    put_u32(&m, PM_GGUF_I8);
    put_u64(&m, 3);
    put(&m, bytes, 3);
    put_key(&m, "texts", PM_GGUF_ARRAY);
    put_u32(&m, PM_GGUF_STRING);
    put_u64(&m, 3);
    put_text(&m, "one");
    put_text(&m, "");
    put_text(&m, "three");
    put_key(&m, "nested", PM_GGUF_ARRAY);
    put_u32(&m, PM_GGUF_ARRAY);
    put_u64(&m, 2);
    put_u32(&m, PM_GGUF_U8);
    put_u64(&m, 0);
    put_u32(&m, PM_GGUF_STRING);
    put_u64(&m, 1);
    put_text(&m, "deep");
    pm_gguf *g = open_image(&m, path);
    if (!g) return;
    CHECK(pm_gguf_n_keys(g) == 8 && !strcmp(pm_gguf_key(g, 1), "i32") && !pm_gguf_key(g, 8) && !pm_gguf_value_at(g, 8), "keys");
    for (size_t k = 0; k < 8; k++) CHECK(pm_gguf_find(g, pm_gguf_key(g, k)) == pm_gguf_value_at(g, k), "%s", pm_gguf_key(g, k));
    CHECK(!pm_gguf_find(g, "") && !pm_gguf_find(g, "i3") && !pm_gguf_find(g, "zzz"), "absent keys");
    const pm_gguf_value *v = pm_gguf_find(g, "u64");
    CHECK(!pm_gguf_int(v, 0, &i) && !pm_gguf_float(v, 0, &d), "2^63 does not fit");
    v = pm_gguf_find(g, "i32");
    CHECK(pm_gguf_int(v, 0, &i) && i == -5 && pm_gguf_float(v, 0, &d) && d == -5 && !pm_gguf_int(v, 1, &i) && !pm_gguf_str(v, 0, &s), "i32");
    v = pm_gguf_find(g, "f32");
    CHECK(!pm_gguf_int(v, 0, &i) && pm_gguf_float(v, 0, &d) && d == 2.5, "f32");
    v = pm_gguf_find(g, "bool");
    CHECK(pm_gguf_int(v, 0, &i) && i == 1 && !pm_gguf_float(v, 0, &d), "bool");
    v = pm_gguf_find(g, "text");
    CHECK(pm_gguf_str(v, 0, &s) && s.bytes == 3 && !memcmp(s.data, "a\0b", 4) && !pm_gguf_int(v, 0, &i), "text");
    v = pm_gguf_find(g, "i8s");
    CHECK(pm_gguf_value_is_array(v) && pm_gguf_value_count(v) == 3 && pm_gguf_value_type(v) == PM_GGUF_I8, "i8s");
    for (uint64_t k = 0; k < 3; k++) CHECK(pm_gguf_int(v, k, &i) && i == bytes[k], "i8s %d", (int)k);
    CHECK(!pm_gguf_int(v, 3, &i), "past the end");
    v = pm_gguf_find(g, "texts");
    CHECK(pm_gguf_str(v, 1, &s) && s.bytes == 0 && !s.data[0] && pm_gguf_str(v, 2, &s) && !strcmp(s.data, "three"), "texts");
    CHECK(!pm_gguf_str(v, 3, &s) && !pm_gguf_int(v, 0, &i), "texts past the end");
    v = pm_gguf_find(g, "nested");
    CHECK(!pm_gguf_int(v, 0, &i) && !pm_gguf_float(v, 0, &d) && !pm_gguf_str(v, 0, &s) && pm_gguf_json(v, 9, NULL, 5) == (int64_t)strlen("[[], [\"deep\"]]"), "nested");
    CHECK(pm_gguf_bytes(g) == m.n && !strcmp(pm_gguf_path(g), path), "file");
    check_value_bytes(g, &m);
    pm_gguf_close(g);
}

/* Two parts with one tensor each; every byte tells part and place. */
static void test_split(const char *folder) {
    image m;
    char path[2][256];
    unsigned char got[64];
    for (int part = 0; part < 2; part++) {
        put_head(&m, 1, 2);
        put_key(&m, "split.no", PM_GGUF_U16);
        put(&m, part ? "\1\0" : "\0\0", 2);
        put_key(&m, "split.count", PM_GGUF_U16);
        put(&m, "\2\0", 2);
        put_tensor(&m, part ? "second" : "first", 8, 2, part ? 24 : 0, 32); /* I8, F32 */
        while (m.n % 32) put(&m, "", 1);
        for (int k = 0; k < 96; k++) put(&m, (unsigned char[]){(unsigned char)(part * 100 + k)}, 1);
        snprintf(path[part], sizeof path[part], "%s/set-0000%d-of-00002.gguf", folder, part + 1);
        write_image(&m, path[part]);
    }
    pm_gguf *g = NULL;
    pymtp_error err = {0};
    CHECK(pm_gguf_open(path[1], &g, &err) == PYMTP_OK, "%s", err.text);
    if (!g) return;
    const pm_gguf_tensor *a = pm_gguf_tensor_find(g, "first"), *b = pm_gguf_tensor_find(g, "second");
    CHECK(a && b && a->file == 0 && b->file == 1 && pm_gguf_tensor_at(g, 1) == b && !pm_gguf_tensor_find(g, "third"), "directory");
    CHECK(a && a->bytes == 64 && a->rows == 2 && b && b->bytes == 16 && b->dims[2] == 1, "sizes");
    CHECK(pm_gguf_n_tensors(g) == 2 && pm_gguf_bytes(g) == 2 * m.n && !strcmp(pm_gguf_path(g), path[1]), "set");
    if (a && b) {
        CHECK(pm_gguf_read(g, a, 0, got, 64, &err) == PYMTP_OK && got[0] == 32 && got[63] == 95, "first: %d %d", got[0], got[63]);
        CHECK(pm_gguf_read(g, b, 3, got, 13, &err) == PYMTP_OK && got[0] == 135 && got[12] == 147, "second: %d", got[0]);
        CHECK(pm_gguf_read(g, b, 16, got, 0, &err) == PYMTP_OK, "nothing at the end");
        CHECK(pm_gguf_read(g, b, 4, got, 13, &err) == PYMTP_E_ARG && strstr(err.text, "second"), "%s", err.text);
        CHECK(pm_gguf_read(g, b, UINT64_MAX, got, 13, NULL) == PYMTP_E_ARG, "wrapping");
        pymtp_file *f = pymtp_file_open(path[0], &err);
        CHECK(pymtp_file_read(f, 1, 3, got, 13, &err) == PYMTP_OK && got[0] == 135 && got[12] == 147, "second: %s", err.text);
        CHECK(pymtp_file_read(f, 1, 4, got, 13, &err) == PYMTP_E_ARG && strstr(err.text, "second"), "%s", err.text);
        CHECK(pymtp_file_read(f, 2, 0, got, 0, &err) == PYMTP_E_ARG && pymtp_file_read(NULL, 0, 0, got, 0, NULL) == PYMTP_E_ARG, "no such tensor");
        CHECK(pymtp_file_read(f, 0, 0, NULL, 1, &err) == PYMTP_E_ARG && pymtp_file_read(f, 0, 64, NULL, 0, &err) == PYMTP_OK, "nowhere");
        pymtp_file_close(f);
        pymtp_error shrunk = {0};
        CHECK(!truncate(path[0], (off_t)a->offset + 10), "truncate");
        CHECK(pm_gguf_read(g, a, 0, got, 64, &shrunk) == PYMTP_E_IO && strstr(shrunk.text, path[0]), "a file that shrinks: %s", shrunk.text);
    }
    pm_gguf_close(g);
    pymtp_file *f = pymtp_file_open(path[0], &err);
    CHECK(!f && strstr(err.text, path[0]), "the shrunk part is refused: %s", err.text);
    unlink(path[0]);
    unlink(path[1]);
}

static void test_names(void) {
    CHECK(!strcmp(pm_ggml_type_name(0), "F32") && !strcmp(pm_ggml_type_name(19), "IQ1_S") && !strcmp(pm_ggml_type_name(30), "BF16") &&
              !strcmp(pm_ggml_type_name(35), "TQ2_0") && !strcmp(pm_ggml_type_name(39), "MXFP4") && !strcmp(pm_ggml_type_name(40), "NVFP4"), "names");
    CHECK(!pm_ggml_type_name(1000) && !pm_ggml_type_name(UINT32_MAX), "unknown");
}

int main(void) {
    char folder[] = "/tmp/pymtp-test-XXXXXX", path[64];
    CHECK(mkdtemp(folder), "no folder");
    snprintf(path, sizeof path, "%s/a.gguf", folder);
    test_values(path);
    unlink(path);
    test_split(folder);
    test_names();
    rmdir(folder);
    pm_gguf_close(NULL);
    return check_done();
}
