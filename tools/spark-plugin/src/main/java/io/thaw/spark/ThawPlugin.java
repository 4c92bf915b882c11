// SPDX-License-Identifier: Apache-2.0
package io.thaw.spark;

import java.util.Map;
import org.apache.spark.TaskContext;
import org.apache.spark.TaskFailedReason;
import org.apache.spark.api.plugin.DriverPlugin;
import org.apache.spark.api.plugin.ExecutorPlugin;
import org.apache.spark.api.plugin.PluginContext;
import org.apache.spark.api.plugin.SparkPlugin;

/**
 * Views of environments, opened with thaw's node service before a session's first
 * task runs. For the cluster ({@code spark.plugins=io.thaw.spark.ThawPlugin}):
 *
 * <ul>
 *   <li>{@code spark.thaw.command}: the command (default {@code thaw})
 *   <li>{@code spark.thaw.lease}: seconds that a view outlives whoever renews it (300)
 *   <li>{@code spark.thaw.idle}: seconds without a task after which nobody does (1800)
 * </ul>
 *
 * For a session, by {@code spark.conf.set}:
 *
 * <ul>
 *   <li>{@code spark.thaw.image}: an image, or a packed environment, on the executors' machines
 *   <li>{@code spark.thaw.directory}: where its view stands there, for {@code
 *       spark.sql.execution.pyspark.python}
 * </ul>
 */
public final class ThawPlugin implements SparkPlugin {
  @Override
  public DriverPlugin driverPlugin() {
    return null;
  }

  @Override
  public ExecutorPlugin executorPlugin() {
    return new Executor();
  }

  private static final class Executor implements ExecutorPlugin {
    /* Which view the task of this thread uses: its end is reported by the same thread. */
    private final ThreadLocal<Views.View> current = new ThreadLocal<>();
    private Views views;

    @Override
    public void init(PluginContext context, Map<String, String> extra) {
      views = new Views(
          new Command(context.conf().get("spark.thaw.command", "thaw")),
          context.conf().getLong("spark.thaw.lease", 300),
          context.conf().getLong("spark.thaw.idle", 1800));
    }

    @Override
    public void onTaskStart() {
      TaskContext task = TaskContext.get();
      String image = task.getLocalProperty("spark.thaw.image");
      String directory = task.getLocalProperty("spark.thaw.directory");
      if (image != null && directory != null) {
        current.set(views.use(image, directory));
      }
    }

    @Override
    public void onTaskSucceeded() {
      ended();
    }

    @Override
    public void onTaskFailed(TaskFailedReason reason) {
      ended();
    }

    private void ended() {
      Views.View view = current.get();
      if (view != null) {
        current.remove();
        view.release();
      }
    }

    @Override
    public void shutdown() {
      views.close();
    }
  }
}
