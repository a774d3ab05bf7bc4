/* A stand-in libnvidia-ml.so.1. It answers the calls that the real bindings make, from a scenario file named
   by FAKE_NVML_SCENARIO, read again at every call so that a test can change the world while a process runs.
   One "key value" a line:
     init 9                 nvmlInit returns 9
     card NAME | UUID | BUS a card; the keys below belong to the last card named
     memory USED TOTAL      bytes
     mig 0 …                any other key is a number, asked by the functions below
     fail CALL CODE         that call returns CODE for this card (CALL '*': every call with its handle)
     crash CALL             that call ends the process with SIGSEGV
     open CODE              the handle cannot be had
   A function that a driver lacks: build with -DWITHOUT_TEMPERATURE_V. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID = 2, UNSUPPORTED = 3, LIMIT = 8, KEYS = 48 };
struct fact { char key[40]; char text[64]; double first, second; };
struct card { char name[96], uuid[96], bus[32]; int open; struct fact facts[KEYS]; int count; };
static struct card cards[LIMIT];
static int card_count, init_code;

static void read_line(char *line) {
  char key[40] = "", text[64] = "", name[96], uuid[96], bus[32];
  double second = 0;
  if (sscanf(line, "card %95[^|]| %95[^| ] | %31s", name, uuid, bus) == 3 && card_count < LIMIT) {
    struct card *card = &cards[card_count++];
    memset(card, 0, sizeof *card);
    name[strcspn(name, "|")] = 0;
    while (*name && name[strlen(name) - 1] == ' ') name[strlen(name) - 1] = 0;
    strcpy(card->name, name); strcpy(card->uuid, uuid); strcpy(card->bus, bus);
    return;
  }
  if (sscanf(line, "%39s %63s %lf", key, text, &second) < 2) return;
  if (!strcmp(key, "init")) { init_code = atoi(text); return; }
  if (!card_count) return;
  struct card *card = &cards[card_count - 1];
  if (!strcmp(key, "open")) { card->open = atoi(text); return; }
  if (card->count == KEYS) return;
  struct fact *fact = &card->facts[card->count++];
  strcpy(fact->key, key); strcpy(fact->text, text);
  fact->first = atof(text); fact->second = second;
}

static void read_scenario(void) {
  const char *path = getenv("FAKE_NVML_SCENARIO");
  FILE *file = path ? fopen(path, "r") : NULL;
  char line[256];
  card_count = 0; init_code = 0;
  if (!file) { init_code = 9; return; }
  while (fgets(line, sizeof line, file)) read_line(line);
  fclose(file);
}

static struct fact *find(struct card *card, const char *key) {
  for (int i = 0; i < card->count; i++) if (!strcmp(card->facts[i].key, key)) return &card->facts[i];
  return NULL;
}

/* The card behind a handle (its index + 1), or the code with which this call fails. */
static int enter(void *handle, const char *call, struct card **found) {
  read_scenario();
  long index = (long)handle - 1;
  if (init_code) return init_code;
  if (index < 0 || index >= card_count) return 15;
  struct card *card = *found = &cards[index];
  for (int i = 0; i < card->count; i++) {
    struct fact *fact = &card->facts[i];
    int here = !strcmp(fact->text, call) || !strcmp(fact->text, "*");
    if (here && !strcmp(fact->key, "crash")) raise(SIGSEGV);
    if (here && !strcmp(fact->key, "fail")) return (int)fact->second;
  }
  return OK;
}

static int number(void *handle, const char *key, unsigned *value) {
  struct card *card;
  int code = enter(handle, key, &card);
  if (code) return code;
  struct fact *fact = find(card, key);
  if (!fact) return UNSUPPORTED;
  *value = (unsigned)fact->first;
  return OK;
}

static int copy(void *handle, const char *key, char *to, unsigned length) {
  struct card *card;
  int code = enter(handle, key, &card);
  if (!code) snprintf(to, length, "%s", !strcmp(key, "name") ? card->name : card->uuid);
  return code;
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; read_scenario(); return init_code; }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) {
  switch (code) {
    case 3: return "Not Supported"; case 4: return "Insufficient Permissions"; case 9: return "Driver Not Loaded";
    case 15: return "GPU is lost"; case 18: return "Driver/library version mismatch"; default: return "Unknown Error";
  }
}
int nvmlSystemGetDriverVersion(char *to, unsigned length) { snprintf(to, length, "595.84"); return OK; }
int nvmlDeviceGetCount_v2(unsigned *count) { read_scenario(); *count = card_count; return init_code; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
  read_scenario();
  if ((int)index >= card_count) return INVALID;
  *handle = (void *)(long)(index + 1);
  return cards[index].open;
}
int nvmlDeviceGetName(void *handle, char *to, unsigned length) { return copy(handle, "name", to, length); }
int nvmlDeviceGetUUID(void *handle, char *to, unsigned length) { return copy(handle, "uuid", to, length); }

struct pci { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; };
int nvmlDeviceGetPciInfo_v3(void *handle, struct pci *to) {
  struct card *card;
  int code = enter(handle, "pci", &card);
  if (!code) { memset(to, 0, sizeof *to); snprintf(to->bus_id, sizeof to->bus_id, "%s", card->bus); }
  return code;
}
struct memory { unsigned long long total, free, used; };
int nvmlDeviceGetMemoryInfo(void *handle, struct memory *to) {
  struct card *card;
  int code = enter(handle, "memory", &card);
  struct fact *fact = code ? NULL : find(card, "memory");
  if (!code && !fact) return UNSUPPORTED;
  if (code) return code;
  to->used = fact->first; to->total = fact->second; to->free = to->total - to->used;
  return OK;
}
struct rates { unsigned gpu, memory; };
int nvmlDeviceGetUtilizationRates(void *handle, struct rates *to) { to->memory = 0; return number(handle, "utilisation", &to->gpu); }
int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
  unsigned tens = 0;
  int code = number(handle, "capability", &tens);
  *major = tens / 10; *minor = tens % 10;
  return code;
}
int nvmlDeviceGetPowerUsage(void *handle, unsigned *to) { return number(handle, "power", to); }
int nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned *to) { return number(handle, "power_limit", to); }
int nvmlDeviceGetClockInfo(void *handle, int kind, unsigned *to) { (void)kind; return number(handle, "clock", to); }
int nvmlDeviceGetCurrPcieLinkGeneration(void *handle, unsigned *to) { return number(handle, "generation", to); }
int nvmlDeviceGetMaxPcieLinkGeneration(void *handle, unsigned *to) { return number(handle, "generation_max", to); }
int nvmlDeviceGetCurrPcieLinkWidth(void *handle, unsigned *to) { return number(handle, "width", to); }
int nvmlDeviceGetMaxPcieLinkWidth(void *handle, unsigned *to) { return number(handle, "width_max", to); }
int nvmlDeviceGetPcieThroughput(void *handle, int counter, unsigned *to) { return number(handle, counter ? "link_rx" : "link_tx", to); }
int nvmlDeviceGetMemoryBusWidth(void *handle, unsigned *to) { return number(handle, "bus_width", to); }
int nvmlDeviceGetNumGpuCores(void *handle, unsigned *to) { return number(handle, "cores", to); }
int nvmlDeviceGetMaxClockInfo(void *handle, int kind, unsigned *to) { return number(handle, kind == 2 ? "memory_clock_max" : "clock_max", to); }
int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *to) { (void)sensor; return number(handle, "temperature", to); }
#ifndef WITHOUT_TEMPERATURE_V
struct temperature { unsigned version; int sensor; int value; };
int nvmlDeviceGetTemperatureV(void *handle, struct temperature *to) { return number(handle, "temperature", (unsigned *)&to->value); }
#endif
int nvmlDeviceGetCurrentClocksEventReasons(void *handle, unsigned long long *to) {
  unsigned value = 0;
  int code = number(handle, "reasons", &value);
  *to = value;
  return code;
}
