// A table of rows that open as a whole, by click and by Enter. Every text is interpolated, never parsed.
export default {
  template: `
    <div class="lw-table">
      <table v-if="rows.length">
        <thead>
          <tr>
            <th v-for="c in columns" :key="c.name" scope="col" :style="c.width ? {width: c.width} : {}"
                :class="[c.align, hides(c)]">{{ c.label }}</th>
          </tr>
        </thead>
        <tbody>
          <tr v-for="r in rows" :key="r.key" :class="{opens: opens}" :tabindex="opens ? 0 : undefined"
              @click="clicked($event, r)" @keydown.enter.self="open(r)">
            <td v-for="(c, i) in columns" :key="c.name" :class="[c.align, c.kind, hides(c)]" :data-label="c.label">
              <span v-if="c.kind === 'badge'" :class="'lw-badge ' + r.cells[i].tone">{{ r.cells[i].text }}</span>
              <code v-else-if="c.kind === 'code'" :title="r.cells[i].text">{{ r.cells[i].text }}</code>
              <time v-else-if="c.kind === 'time'" :title="r.cells[i].title">{{ r.cells[i].text }}</time>
              <template v-else>{{ r.cells[i].text }}</template>
            </td>
          </tr>
        </tbody>
      </table>
      <slot v-else></slot>
    </div>`,
  props: { columns: Array, rows: Array, opens: Boolean },
  methods: {
    hides(column) {
      return column.hides_below ? "lw-below-" + column.hides_below : "";
    },
    clicked(event, row) {
      // Who marks text to copy it does not want to leave.
      if (!String(window.getSelection())) this.open(row);
    },
    open(row) {
      if (this.opens) this.$emit("open", row.key);
    },
  },
};
