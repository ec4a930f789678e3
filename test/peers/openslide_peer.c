/* OpenSlide's side of comparisons: what it says of a slide, its pixels, and its speed.
 *
 *   cc -O2 openslide_peer.c -o openslide_peer $(pkg-config --cflags --libs openslide) -lpthread
 *
 *   openslide_peer serve FILE        answers lines on standard input:
 *       levels                       "N w h downsample ..." on one line
 *       version                      OpenSlide's version
 *       properties                   "N", then name and value, each after its length in bytes
 *       region LEVEL X Y W H         W*H*3 bytes of RGB over the background, or "error ..." (see below)
 *       associated                   "N", then each name after its length in bytes, and its size
 *       picture NAME                 w*h*3 bytes of RGB over white
 *       icc                          "N", then the N bytes of the profile; 0 before OpenSlide 4
 *     Before region's and picture's bytes comes a line "ok" or "error MESSAGE".
 *   openslide_peer tiles FILE LEVEL TILE THREADS N   reads N tiles of a level at most, in order
 *   openslide_peer regions FILE LEVEL SIDE COUNT     reads seeded random squares
 *   openslide_peer open FILE COUNT                   opens and closes
 *     Each prints seconds and how many.
 */
#include <openslide.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static openslide_t *open_or_die(const char *file) {
  openslide_t *slide = openslide_open(file);
  if (slide == NULL) {
    fprintf(stderr, "not a slide that OpenSlide reads\n");
    exit(3);
  }
  if (openslide_get_error(slide) != NULL) {
    fprintf(stderr, "%s\n", openslide_get_error(slide));
    exit(3);
  }
  return slide;
}

/* Premultiplied ARGB to RGB over white. */
static void to_rgb(const uint32_t *argb, uint8_t *rgb, int64_t pixels) {
  for (int64_t i = 0; i < pixels; i++) {
    uint32_t p = argb[i], white = 255 - (p >> 24);
    rgb[3 * i] = ((p >> 16) & 255) + white;
    rgb[3 * i + 1] = ((p >> 8) & 255) + white;
    rgb[3 * i + 2] = (p & 255) + white;
  }
}

/* The same over a colour. */
static void to_rgb_over(uint32_t over, const uint32_t *argb, uint8_t *rgb, int64_t pixels) {
  for (int64_t i = 0; i < pixels; i++) {
    uint32_t p = argb[i], rest = 255 - (p >> 24);
    for (int channel = 0, shift = 16; channel < 3; channel++, shift -= 8) {
      uint32_t c = ((p >> shift) & 255) + (((over >> shift) & 255) * rest + 127) / 255;
      rgb[3 * i + channel] = c > 255 ? 255 : c;
    }
  }
}

/* Writes pixels that were read, over a colour, or why they were not; frees them. */
static int answer(openslide_t *slide, uint32_t background, uint32_t *argb, int64_t pixels) {
  const char *error = openslide_get_error(slide);
  uint8_t *rgb = malloc((size_t) pixels * 3 + 1);
  if (error != NULL || rgb == NULL) {
    printf("error %s\n", error != NULL ? error : "no memory");
    return 1;
  }
  to_rgb_over(background, argb, rgb, pixels);
  printf("ok\n");
  fwrite(rgb, 3, (size_t) pixels, stdout);
  free(argb);
  free(rgb);
  return 0;
}

static int serve(const char *file) {
  openslide_t *slide = open_or_die(file);
  const char *colour = openslide_get_property_value(slide, OPENSLIDE_PROPERTY_NAME_BACKGROUND_COLOR);
  uint32_t background = colour == NULL ? 0xffffff : strtoul(colour, NULL, 16);
  char line[256];
  while (fgets(line, sizeof line, stdin) != NULL) {
    int32_t level;
    int64_t x, y, w, h;
    if (strncmp(line, "levels", 6) == 0) {
      int32_t n = openslide_get_level_count(slide);
      printf("%d", n);
      for (int32_t i = 0; i < n; i++) {
        openslide_get_level_dimensions(slide, i, &w, &h);
        printf(" %" PRId64 " %" PRId64 " %.17g", w, h, openslide_get_level_downsample(slide, i));
      }
      printf("\n");
    } else if (strncmp(line, "version", 7) == 0) {
      printf("%s\n", openslide_get_version());
    } else if (strncmp(line, "properties", 10) == 0) {
      int n = 0;
      const char *const *names = openslide_get_property_names(slide);
      while (names[n] != NULL) n++;
      printf("%d\n", n);
      for (int i = 0; i < n; i++) {
        const char *value = openslide_get_property_value(slide, names[i]);
        printf("%zu %s %zu %s", strlen(names[i]), names[i], strlen(value), value);
      }
    } else if (strncmp(line, "associated", 10) == 0) {
      int n = 0;
      const char *const *names = openslide_get_associated_image_names(slide);
      while (names[n] != NULL) n++;
      printf("%d\n", n);
      for (int i = 0; i < n; i++) {
        openslide_get_associated_image_dimensions(slide, names[i], &w, &h);
        printf("%zu %s %" PRId64 " %" PRId64 "\n", strlen(names[i]), names[i], w, h);
      }
    } else if (strncmp(line, "picture ", 8) == 0) {
      line[strcspn(line, "\n")] = 0;
      openslide_get_associated_image_dimensions(slide, line + 8, &w, &h);
      uint32_t *argb = malloc((size_t) w * h * 4);
      if (argb == NULL) return 1;
      openslide_read_associated_image(slide, line + 8, argb);
      if (answer(slide, 0xffffff, argb, w * h) != 0) return 0;
    } else if (strncmp(line, "icc", 3) == 0) {
      long long size = 0;
#ifdef OPENSLIDE_4
      size = openslide_get_icc_profile_size(slide);
      uint8_t *profile = malloc((size_t) size + 1);
      if (profile == NULL) return 1;
      openslide_read_icc_profile(slide, profile);
      printf("%lld\n", size);
      fwrite(profile, 1, (size_t) size, stdout);
      free(profile);
#else
      printf("%lld\n", size);
#endif
    } else if (sscanf(line, "region %d %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64,
                      &level, &x, &y, &w, &h) == 5) {
      uint32_t *argb = malloc((size_t) w * h * 4);
      if (argb == NULL) return 1;
      openslide_read_region(slide, argb, x, y, level, w, h);
      if (answer(slide, background, argb, w * h) != 0) return 0;
    }
    fflush(stdout);
  }
  openslide_close(slide);
  return 0;
}

struct job {
  openslide_t *slide;
  int32_t level;
  int64_t tile, columns, count, next;
  double downsample;
  pthread_mutex_t lock;
};

static void *read_tiles(void *arg) {
  struct job *job = arg;
  uint32_t *argb = malloc(job->tile * job->tile * 4);
  uint8_t *rgb = malloc(job->tile * job->tile * 3);
  for (;;) {
    pthread_mutex_lock(&job->lock);
    int64_t at = job->next++;
    pthread_mutex_unlock(&job->lock);
    if (at >= job->count) break;
    openslide_read_region(job->slide, argb,
                          (int64_t) (at % job->columns * job->tile * job->downsample),
                          (int64_t) (at / job->columns * job->tile * job->downsample),
                          job->level, job->tile, job->tile);
    to_rgb(argb, rgb, job->tile * job->tile);
  }
  free(argb);
  free(rgb);
  return NULL;
}

static int tiles(const char *file, int level, int tile, int threads, int64_t most) {
  int64_t w, h;
  struct job job = { .slide = open_or_die(file), .level = level, .tile = tile };
  openslide_get_level_dimensions(job.slide, level, &w, &h);
  job.downsample = openslide_get_level_downsample(job.slide, level);
  job.columns = (w + tile - 1) / tile;
  job.count = job.columns * ((h + tile - 1) / tile);
  if (job.count > most) job.count = most;
  pthread_mutex_init(&job.lock, NULL);
  pthread_t *ids = malloc(threads * sizeof *ids);
  double start = now();
  for (int i = 0; i < threads; i++) pthread_create(&ids[i], NULL, read_tiles, &job);
  for (int i = 0; i < threads; i++) pthread_join(ids[i], NULL);
  printf("%f %" PRId64 "\n", now() - start, job.count);
  return openslide_get_error(job.slide) != NULL;
}

static int regions(const char *file, int level, int side, int count) {
  int64_t w, h;
  openslide_t *slide = open_or_die(file);
  openslide_get_level_dimensions(slide, level, &w, &h);
  double downsample = openslide_get_level_downsample(slide, level);
  uint32_t *argb = malloc((size_t) side * side * 4);
  uint8_t *rgb = malloc((size_t) side * side * 3);
  uint32_t state = 1;
  double start = now();
  for (int i = 0; i < count; i++) {
    int64_t at[2];
    for (int k = 0; k < 2; k++) {
      /* xorshift32, as the other side has it */
      state ^= state << 13;
      state ^= state >> 17;
      state ^= state << 5;
      at[k] = (int64_t) (state % (uint32_t) ((k == 0 ? w : h) - side) * downsample);
    }
    openslide_read_region(slide, argb, at[0], at[1], level, side, side);
    to_rgb(argb, rgb, (int64_t) side * side);
  }
  printf("%f %d\n", now() - start, count);
  return openslide_get_error(slide) != NULL;
}

int main(int argc, char **argv) {
  if (argc == 3 && strcmp(argv[1], "serve") == 0) return serve(argv[2]);
  if (argc == 7 && strcmp(argv[1], "tiles") == 0)
    return tiles(argv[2], atoi(argv[3]), atoi(argv[4]), atoi(argv[5]), atoll(argv[6]));
  if (argc == 6 && strcmp(argv[1], "regions") == 0)
    return regions(argv[2], atoi(argv[3]), atoi(argv[4]), atoi(argv[5]));
  if (argc == 4 && strcmp(argv[1], "open") == 0) {
    double start = now();
    for (int i = 0; i < atoi(argv[3]); i++) openslide_close(open_or_die(argv[2]));
    printf("%f %d\n", now() - start, atoi(argv[3]));
    return 0;
  }
  fprintf(stderr, "see the head of openslide_peer.c\n");
  return 2;
}
