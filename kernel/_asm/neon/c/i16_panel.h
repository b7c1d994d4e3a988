// Where things are in an i16Panel; kernel/i16_asm.go compares these numbers with the
// struct. The pairs of columns of 32 rows, float scales, minimums.
enum { PANEL_ROWS = 32, PAIR = 2 * PANEL_ROWS, PANEL_D = 16384, PANEL_MIN = 17408 };

INLINE float *panel_d(int16_t *p) { return (float *)((uint8_t *)p + PANEL_D); }
INLINE float *panel_min(int16_t *p) { return (float *)((uint8_t *)p + PANEL_MIN); }
