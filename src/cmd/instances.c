#include "cmd/instances.h"

#include "conf/settings.h"

static struct str value_of(const struct conf *c, enum param p, struct arena *a) {
    struct str value;
    return conf_lookup(c, param_row(p)->name, a, &value) ? value : STR("");
}

void instance_read(struct str config_directory, struct arena *a, struct instance *ret) {
    *ret = (struct instance){ .config_directory = arena_str(a, config_directory) };
    struct conf_source source = { .config_directory = ret->config_directory };
    struct conf *c;
    /* values are not checked: what is wrong with the others is no reason not to find these */
    if ((ret->problem = conf_open(&source, a, &c)))
        return;
    ret->queue_directory = value_of(c, PARAM_queue_directory, a);
    ret->data_directory = value_of(c, PARAM_data_directory, a);
    ret->name = value_of(c, PARAM_multi_instance_name, a);
    ret->group = value_of(c, PARAM_multi_instance_group, a);
    ret->enabled = str_eq_icase(value_of(c, PARAM_multi_instance_enable, a), STR("yes"));
    conf_free(c);
}

void instances_load(const struct conf *primary, struct arena *a, struct instances *ret) {
    *ret = (struct instances){ .arena = a };
    struct instance one;
    instance_read(conf_directory(primary), a, &one);
    one.primary = true;
    *vec_add(a, &ret->list) = one;
    struct str rest = conf_str(primary, PARAM_multi_instance_directories), word;
    while (str_word(&rest, STR_COMMA_SPACE, &word)) {
        instance_read(word, a, &one);
        *vec_add(a, &ret->list) = one;
    }
    if (ret->list.n == 1) /* alone, it is what every command is for */
        ret->list.at[0].enabled = true;
}

static bool is_named(const struct instance *i, struct str name) {
    if (str_eq(name, STR("-")))
        return i->primary;
    return str_eq(name, str_starts(name, STR("/")) ? i->config_directory : i->name);
}

bool instance_chosen(const struct instance *i, const struct instance_choice *choice) {
    if (choice->name)
        return is_named(i, str_c(choice->name));
    if (choice->group)
        return str_eq(strcmp(choice->group, "-") == 0 ? STR("") : str_c(choice->group), i->group);
    return true;
}

struct instance *instance_find(struct instances *all, const char *name) {
    for (size_t i = 0; i < all->list.n; i++)
        if (is_named(&all->list.at[i], str_c(name)))
            return &all->list.at[i];
    return NULL;
}
