/* A program in C over the library: makes one picture, prints progress, writes it as a PPM file.
 *
 *   example BUNDLE REQUEST OUTPUT.ppm        REQUEST is JSON: {"task": "text2image", "prompt": ["a tiger"], "seed": 7}
 */

#include <stdio.h>

#include "kandinsky_mindir.h"

static int progress(void *context, const char *stage, size_t done, size_t all) {
  (void)context;
  fprintf(stderr, "%s %zu/%zu\n", stage, done, all);
  return 0;
}

static int picture(void *context, const kandinsky_picture *picture) {
  FILE *file = fopen((const char *)context, "wb");
  if (file == NULL) {
    return 1;
  }
  fprintf(file, "P6 %d %d 255\n", picture->width, picture->height);
  fwrite(picture->rgb, 3, (size_t)picture->width * (size_t)picture->height, file);
  return fclose(file);
}

int main(int argc, char **argv) {
  char error[KANDINSKY_ERROR_SIZE];
  kandinsky_bundle *bundle = NULL;
  kandinsky_options options;
  kandinsky_callbacks callbacks = {progress, picture, argc > 3 ? argv[3] : NULL};
  int status;
  if (argc != 4) {
    fprintf(stderr, "usage: example BUNDLE REQUEST OUTPUT.ppm\n");
    return KANDINSKY_REFUSED;
  }
  kandinsky_options_init(&options);
  status = kandinsky_open(argv[1], &options, &bundle, error, sizeof(error));
  if (status == KANDINSKY_OK) {
    status = kandinsky_make(bundle, argv[2], &callbacks, error, sizeof(error));
  }
  if (status != KANDINSKY_OK) {
    fprintf(stderr, "example: %s\n", error);
  }
  kandinsky_close(bundle);
  return status;
}
