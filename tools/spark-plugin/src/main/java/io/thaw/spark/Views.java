// SPDX-License-Identifier: Apache-2.0
package io.thaw.spark;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The views that tasks of this executor use.
 *
 * <p>All executors of a machine share a view, since its place is one setting of the
 * session. So none of them owns it: its lease is a time, which each executor renews
 * while it has tasks, or had some lately. Nothing needs to be told of the end of a
 * session, of which executors hear nothing, nor of their own by {@code kill -9}.
 */
final class Views {
  private static final Logger LOG = LoggerFactory.getLogger(Views.class);

  private final Command thaw;
  private final long lease;
  private final long idle;
  private final Map<String, View> byDirectory = new HashMap<>(); // protected by this
  private final ScheduledExecutorService renewer =
      Executors.newSingleThreadScheduledExecutor(
          task -> {
            Thread thread = new Thread(task, "thaw-views");
            thread.setDaemon(true);
            return thread;
          });

  Views(Command thaw, long lease, long idle) {
    this.thaw = thaw;
    this.lease = Math.max(3, lease);
    this.idle = idle;
    renewer.scheduleWithFixedDelay(
        this::renew, this.lease / 3, this.lease / 3, TimeUnit.SECONDS);
  }

  /** One view; open as long as its lease is renewed. */
  final class View {
    private final String image;
    private final String directory;
    private int tasks; // protected by Views.this
    private long lastUse = System.nanoTime(); // the same

    private View(String image, String directory) {
      this.image = image;
      this.directory = directory;
    }

    /* Opening what is open renews the lease. The name is the directory's, on all executors. */
    private void open() throws IOException {
      thaw.run("open", "--shared", "--lease=ttl:" + lease, session(), image, directory);
    }

    private String session() {
      return "spark" + directory.replaceAll("[^A-Za-z0-9]+", "-");
    }

    void release() {
      synchronized (Views.this) {
        tasks--;
        lastUse = System.nanoTime();
      }
    }

    private boolean isIdle() {
      return tasks == 0 && System.nanoTime() - lastUse > TimeUnit.SECONDS.toNanos(idle);
    }
  }

  /** The view of an image at a directory, opened if need be; to be released. */
  View use(String image, String directory) {
    synchronized (this) {
      View view = byDirectory.get(directory);
      if (view == null || !view.image.equals(image)) {
        if (view != null && view.tasks > 0) {
          throw new IllegalStateException(
              "thaw: " + directory + " shows " + view.image + ", and tasks use it");
        }
        if (view != null) {
          end(view); // the session has switched to another image
        }
        view = new View(image, directory);
        try {
          view.open();
        } catch (IOException error) {
          throw new UncheckedIOException(error.getMessage(), error);
        }
        byDirectory.put(directory, view);
        LOG.info("opened a view of {} at {}", image, directory);
      }
      view.tasks++;
      return view;
    }
  }

  private void renew() {
    List<View> alive = new ArrayList<>();
    synchronized (this) {
      for (Iterator<View> views = byDirectory.values().iterator(); views.hasNext(); ) {
        View view = views.next();
        if (view.isIdle()) {
          views.remove(); // its time runs out, unless another executor renews it
        } else {
          alive.add(view);
        }
      }
    }
    for (View view : alive) {
      try {
        view.open();
      } catch (IOException error) {
        LOG.warn("the view at {} could not be renewed: {}", view.directory, error.getMessage());
      }
    }
  }

  /* Not by force: processes of other executors may be in it. Then its time runs out. */
  private void end(View view) {
    byDirectory.remove(view.directory);
    try {
      thaw.run("close", view.session(), view.directory);
    } catch (IOException error) {
      LOG.info("the view at {} stays: {}", view.directory, error.getMessage());
    }
  }

  void close() {
    renewer.shutdownNow();
    synchronized (this) {
      for (View view : new ArrayList<>(byDirectory.values())) {
        end(view);
      }
    }
  }
}
