/* A stand-in libnvidia-ml.so.1. It answers the calls that the real bindings make, from a scenario file named
   by FAKE_NVML_SCENARIO, read again when it was replaced so that a test can change the world while a process runs.
   One "key value" a line:
     init 9                 nvmlInit returns 9
     card NAME | UUID | BUS a card; the keys below belong to the last card named
     memory USED TOTAL      bytes
     process PID BYTES      one that computes on the card; "drawing PID BYTES" one that draws
     slice UUID,PROFILE,USED,TOTAL    a device that MIG made of the card
     xid CODE NUMBER        an error that is told to who waits for it, once for each NUMBER
     fan 40                 any other key is a number, asked by the functions below
     fail CALL CODE         that call returns CODE for this card (CALL '*': every call with its handle)
     crash CALL             that call ends the process with SIGSEGV
     open CODE              the handle cannot be had
   A function that a driver lacks: build with -DWITHOUT_TEMPERATURE_V. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OK = 0, INVALID = 2, UNSUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, TIMEOUT = 10 };
enum { LIMIT = 8, KEYS = 96, PART = 8 };
struct fact { char key[40]; char text[128]; double first, second; };
struct card { char name[96], uuid[96], bus[32]; int open; struct fact facts[KEYS]; int count; };
/* Of each thread its own: one waits for errors while another asks. */
static __thread struct card cards[LIMIT];
static __thread int card_count, init_code;
static __thread struct stat read_last;

static void read_line(char *line) {
  char key[40] = "", text[128] = "", name[96], uuid[96], bus[32];
  double second = 0;
  if (sscanf(line, "card %95[^|]| %95[^| ] | %31s", name, uuid, bus) == 3 && card_count < LIMIT) {
    struct card *card = &cards[card_count++];
    memset(card, 0, sizeof *card);
    name[strcspn(name, "|")] = 0;
    while (*name && name[strlen(name) - 1] == ' ') name[strlen(name) - 1] = 0;
    strcpy(card->name, name); strcpy(card->uuid, uuid); strcpy(card->bus, bus);
    return;
  }
  if (sscanf(line, "%39s %127s %lf", key, text, &second) < 2) return;
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
  struct stat now;
  if (path && !stat(path, &now) && now.st_ino == read_last.st_ino
      && now.st_mtim.tv_sec == read_last.st_mtim.tv_sec && now.st_mtim.tv_nsec == read_last.st_mtim.tv_nsec) return;
  FILE *file = path ? fopen(path, "r") : NULL;
  char line[256];
  if (!file || fstat(fileno(file), &read_last)) memset(&read_last, 0, sizeof read_last);
  card_count = 0; init_code = 0;
  if (!file) { init_code = 9; return; }
  while (fgets(line, sizeof line, file)) read_line(line);
  fclose(file);
}

static struct fact *find(struct card *card, const char *key) {
  for (int i = 0; i < card->count; i++) if (!strcmp(card->facts[i].key, key)) return &card->facts[i];
  return NULL;
}

/* The card behind a handle (its index + 1; of a slice the place + 1 stands PART bits higher), or the code with
   which this call fails. */
static int enter(void *handle, const char *call, struct card **found) {
  read_scenario();
  long index = ((long)handle & 0xff) - 1;
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

/* The slice behind a handle, NULL for a whole card. */
struct part { char uuid[64], profile[32]; double used, total; };
static struct part *part_of(void *handle, struct card *card) {
  static __thread struct part part;
  long place = (long)handle >> PART;
  for (int i = 0; place && i < card->count; i++) {
    if (strcmp(card->facts[i].key, "slice") || --place) continue;
    if (sscanf(card->facts[i].text, "%63[^,],%31[^,],%lf,%lf", part.uuid, part.profile, &part.used, &part.total) == 4) return &part;
  }
  return NULL;
}

static int large(void *handle, const char *key, unsigned long long *value) {
  struct card *card;
  int code = enter(handle, key, &card);
  struct fact *fact = code ? NULL : find(card, key);
  if (!code && !fact) return UNSUPPORTED;
  if (!code) *value = fact->first;
  return code;
}

static int copy(void *handle, const char *key, char *to, unsigned length) {
  struct card *card;
  int code = enter(handle, key, &card);
  if (code) return code;
  struct part *part = part_of(handle, card);
  int is_name = !strcmp(key, "name");
  if (part && is_name) snprintf(to, length, "%s MIG %s", card->name, part->profile);
  else if (part) snprintf(to, length, "%s", part->uuid);
  else snprintf(to, length, "%s", is_name ? card->name : card->uuid);
  return code;
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; read_scenario(); return init_code; }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) {
  switch (code) {
    case 3: return "Not Supported"; case 10: return "Timeout"; case 4: return "Insufficient Permissions"; case 9: return "Driver Not Loaded";
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
int nvmlDeviceGetIndex(void *handle, unsigned *to) { *to = ((long)handle & 0xff) - 1; return OK; }
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
  struct part *part = code ? NULL : part_of(handle, card);
  if (part) { to->used = part->used; to->total = part->total; to->free = to->total - to->used; return OK; }
  struct fact *fact = code ? NULL : find(card, "memory");
  if (!code && !fact) return UNSUPPORTED;
  if (code) return code;
  to->used = fact->first; to->total = fact->second; to->free = to->total - to->used;
  return OK;
}
struct rates { unsigned gpu, memory; };
int nvmlDeviceGetUtilizationRates(void *handle, struct rates *to) {
  if (number(handle, "memory_utilisation", &to->memory)) to->memory = 0;
  return number(handle, "utilisation", &to->gpu);
}
int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
  unsigned tens = 0;
  int code = number(handle, "capability", &tens);
  *major = tens / 10; *minor = tens % 10;
  return code;
}
int nvmlDeviceGetPowerUsage(void *handle, unsigned *to) { return number(handle, "power", to); }
int nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned *to) { return number(handle, "power_limit", to); }
int nvmlDeviceGetClockInfo(void *handle, int kind, unsigned *to) { return number(handle, kind == 2 ? "memory_clock" : "clock", to); }
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
struct memory_v2 { unsigned version; unsigned long long total, reserved, free, used; };
int nvmlDeviceGetMemoryInfo_v2(void *handle, struct memory_v2 *to) { return large(handle, "memory_reserved", &to->reserved); }
struct bar1 { unsigned long long total, free, used; };
int nvmlDeviceGetBAR1MemoryInfo(void *handle, struct bar1 *to) { to->free = to->used = 0; return large(handle, "bar1", &to->total); }
int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *to) { return large(handle, "energy", to); }
int nvmlDeviceGetGpuMaxPcieLinkGeneration(void *handle, unsigned *to) { return number(handle, "generation_card", to); }
int nvmlDeviceGetPcieReplayCounter(void *handle, unsigned *to) { return number(handle, "replays", to); }
int nvmlDeviceGetPerformanceState(void *handle, unsigned *to) { return number(handle, "performance_state", to); }
int nvmlDeviceGetPowerManagementLimit(void *handle, unsigned *to) { return number(handle, "power_limit", to); }
int nvmlDeviceGetPowerManagementDefaultLimit(void *handle, unsigned *to) { return number(handle, "power_limit_default", to); }
int nvmlDeviceGetPowerManagementLimitConstraints(void *handle, unsigned *low, unsigned *high) {
  int code = number(handle, "power_limit_min", low);
  return code ? code : number(handle, "power_limit_max", high);
}
int nvmlDeviceGetTemperatureThreshold(void *handle, int which, unsigned *to) {
  return number(handle, which == 0 ? "temperature_shutdown" : which == 1 ? "temperature_slowdown" : "temperature_other", to);
}
int nvmlDeviceGetNumFans(void *handle, unsigned *to) { return number(handle, "fans", to); }
int nvmlDeviceGetFanSpeed(void *handle, unsigned *to) { return number(handle, "fan", to); }
int nvmlDeviceGetFanSpeed_v2(void *handle, unsigned fan, unsigned *to) { (void)fan; return number(handle, "fan", to); }
int nvmlDeviceGetEncoderUtilization(void *handle, unsigned *to, unsigned *period) { *period = 0; return number(handle, "encoder", to); }
int nvmlDeviceGetDecoderUtilization(void *handle, unsigned *to, unsigned *period) { *period = 0; return number(handle, "decoder", to); }
int nvmlDeviceGetEccMode(void *handle, unsigned *now, unsigned *next) { int code = number(handle, "ecc", now); *next = *now; return code; }
int nvmlDeviceGetTotalEccErrors(void *handle, int kind, int counter, unsigned long long *to) {
  (void)counter;
  return large(handle, kind ? "ecc_uncorrected" : "ecc_corrected", to);
}
int nvmlDeviceGetRemappedRows(void *handle, unsigned *mended, unsigned *not, unsigned *waits, unsigned *failed) {
  *not = *waits = *failed = 0;
  return number(handle, "remapped_rows", mended);
}
int nvmlDeviceGetPersistenceMode(void *handle, unsigned *to) { return number(handle, "persistence", to); }
int nvmlDeviceGetMigMode(void *handle, unsigned *now, unsigned *next) { int code = number(handle, "mig", now); *next = *now; return code; }
int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *to) { *to = 7; struct card *card; return enter(handle, "mig", &card); }
int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned place, void **to) {
  struct card *card;
  int code = enter(handle, "mig", &card);
  if (code) return code;
  *to = (void *)((long)handle | (long)(place + 1) << PART);
  return part_of(*to, card) ? OK : NOT_FOUND;
}

struct value { unsigned field, scope; long long at, took; int type, code; union { double real; unsigned whole; unsigned long long wide; } value; };
int nvmlDeviceGetFieldValues(void *handle, int count, struct value *values) {
  struct card *card;
  int code = enter(handle, "fields", &card);
  for (int i = 0; !code && i < count; i++) {
    values[i].type = 1; values[i].value.wide = 0;
    values[i].code = number(handle, values[i].field == 82 ? "memory_temperature" : "field", &values[i].value.whole);
  }
  return code;
}

struct process { unsigned pid; unsigned long long used; unsigned instance, compute; };
static int processes(void *handle, const char *key, unsigned *count, struct process *to) {
  struct card *card;
  int code = enter(handle, "processes", &card);
  if (code) return code;
  if (find(card, "no_processes")) return UNSUPPORTED;
  unsigned room = *count, found = 0;
  for (int i = 0; i < card->count; i++) {
    if (strcmp(card->facts[i].key, key)) continue;
    if (to && found < room) { to[found].pid = (unsigned)card->facts[i].first; to[found].used = card->facts[i].second; }
    found++;
  }
  *count = found;
  return found > room ? TOO_SMALL : OK;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, struct process *to) { return processes(handle, "process", count, to); }
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned *count, struct process *to) { return processes(handle, "drawing", count, to); }

/* One set is enough: errors with a number that was there when it was made are old. */
static __thread double told[LIMIT];
static struct fact *news(int index) {
  struct fact *fact = find(&cards[index], "xid");
  return fact && fact->second > told[index] ? fact : NULL;
}
int nvmlEventSetCreate(void **set) {
  read_scenario();
  for (int i = 0; i < card_count; i++) { struct fact *fact = find(&cards[i], "xid"); told[i] = fact ? fact->second : 0; }
  *set = (void *)1L;
  return init_code;
}
int nvmlEventSetFree(void *set) { (void)set; return OK; }
int nvmlDeviceGetSupportedEventTypes(void *handle, unsigned long long *to) { *to = 8; struct card *card; return enter(handle, "events", &card); }
int nvmlDeviceRegisterEvents(void *handle, unsigned long long kinds, void *set) { (void)kinds; (void)set; struct card *card; return enter(handle, "events", &card); }
struct event { void *device; unsigned long long kind, data; unsigned instance, compute; };
int nvmlEventSetWait_v2(void *set, struct event *to, unsigned timeout_ms) {
  (void)set;
  for (unsigned waited = 0;; waited += 10) {
    read_scenario();
    if (init_code) return init_code;
    for (int i = 0; i < card_count; i++) {
      struct fact *fact = news(i);
      if (!fact) continue;
      told[i] = fact->second;
      to->device = (void *)(long)(i + 1); to->kind = 8; to->data = fact->first;
      return OK;
    }
    if (waited >= timeout_ms) return TIMEOUT;
    usleep(10000);
  }
}
