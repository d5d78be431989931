// What the frame does in the browser: theme, menu, copying, keys, and telling whether the tab is seen.
(() => {
  const keep = (name, value) => {
    const secure = location.protocol === "https:" ? "; secure" : "";
    document.cookie = `${name}=${encodeURIComponent(value)}; path=/; max-age=31536000; samesite=strict${secure}`;
  };
  keep("lw_zone", Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC");

  const isDark = () => document.body.classList.contains("body--dark")
    || (!document.body.classList.contains("body--light") && matchMedia("(prefers-color-scheme: dark)").matches);

  const flip = () => {
    const dark = !isDark();
    keep("lw_theme", dark ? "dark" : "light");
    if (window.Quasar) window.Quasar.Dark.set(dark);
    document.body.classList.toggle("body--dark", dark);
    document.body.classList.toggle("body--light", !dark);
  };

  const copy = async (button) => {
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
    } catch {
      // Without https there is no clipboard: the text is marked instead.
      getSelection().selectAllChildren(button.querySelector("code") || button);
      return;
    }
    button.classList.add("copied");
    setTimeout(() => button.classList.remove("copied"), 1200);
  };

  document.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    if (!target) return;
    const menu = target.closest("[data-menu]");
    if (menu) document.body.classList.toggle("lw-nav-open");
    else if (!target.closest(".lw-nav")) document.body.classList.remove("lw-nav-open");
    if (target.closest("[data-theme]")) flip();
    const copied = target.closest("[data-copy]");
    if (copied) copy(copied);
    for (const open of document.querySelectorAll("details.lw-who[open]")) {
      if (!open.contains(target)) open.removeAttribute("open");
    }
  });

  let isGoing = false;
  document.addEventListener("keydown", (event) => {
    const target = event.target;
    if (event.key === "Escape") {
      document.body.classList.remove("lw-nav-open");
      for (const open of document.querySelectorAll("details.lw-who[open]")) open.removeAttribute("open");
    }
    const isTyping = target instanceof HTMLElement
      && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") {
      const field = document.querySelector(".lw-search input");
      if (field) { event.preventDefault(); field.focus(); field.select(); }
    } else if (event.key === "?") {
      const keys = document.getElementById("lw-keys");
      if (keys && !keys.open) keys.showModal();
    } else if (isGoing) {
      isGoing = false;
      const link = document.querySelector(`[data-hotkey="${CSS.escape(event.key)}"]`);
      if (link) link.click();
    } else if (event.key === "g") {
      isGoing = true;
      setTimeout(() => { isGoing = false; }, 1500);
    }
  });

  document.addEventListener("visibilitychange", () => {
    if (window.emitEvent) window.emitEvent("lw-visible", !document.hidden);
  });
})();
