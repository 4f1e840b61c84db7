/* utf8.h - one strict UTF-8 decoder for both directions: no overlong forms, no surrogates, nothing above U+10FFFF.
 * What the encoder takes for a character and what the text decoder lets through are therefore the same set. */
#ifndef PM_TEXT_UTF8_H
#define PM_TEXT_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of a sequence by its first byte; 0 when no sequence starts with it. */
static inline unsigned pm_utf8_length(uint8_t first) {
    if (first < 0x80) return 1;
    if (first < 0xc2 || first > 0xf4) return 0;
    return first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

/* May `byte` follow the `have` >= 1 bytes of a sequence that starts with `first`? Only the second byte has limits of
 * its own (overlong forms, surrogates, the end of Unicode). */
static inline int pm_utf8_continues(uint8_t first, unsigned have, uint8_t byte) {
    uint8_t low = 0x80, high = 0xbf;
    if (have == 1) {
        if (first == 0xe0) low = 0xa0;
        else if (first == 0xed) high = 0x9f;
        else if (first == 0xf0) low = 0x90;
        else if (first == 0xf4) high = 0x8f;
    }
    return byte >= low && byte <= high;
}

/* Length of the character at s (n >= 1 bytes left), 0 when no valid one starts there. */
static inline unsigned pm_utf8_char(const uint8_t *s, size_t n) {
    const unsigned length = pm_utf8_length(s[0]);
    if (length > n) return 0;
    for (unsigned i = 1; i < length; i++)
        if (!pm_utf8_continues(s[0], i, s[i])) return 0;
    return length;
}

#endif
